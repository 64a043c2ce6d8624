# Send the first BX bytes of the text (1 to 64) on the virtio console: one
# notification, then no exit at all until the device has given everything back.
# This one sends each byte for itself.
# It begins in 32-bit protected mode with flat segments.
	.set	CONSOLE, 0xd0000000	# the virtio-mmio window of the console
	.set	FEATURES, 0x20		# its registers
	.set	FEATURESSEL, 0x24
	.set	QUEUESEL, 0x30
	.set	QUEUENUM, 0x38
	.set	QUEUEREADY, 0x44
	.set	NOTIFY, 0x50
	.set	INTERRUPT, 0x60
	.set	STATUS, 0x70
	.set	QUEUEDESC, 0x80
	.set	QUEUEDRIVER, 0x90
	.set	QUEUEDEVICE, 0xa0
	.set	DESC, 0x10000		# the transmit queue: 64 descriptors of 16 bytes,
	.set	AVAIL, 0x11000		# the available ring: flags, idx, heads,
	.set	USED, 0x12000		# the used ring: flags, idx, heads with lengths

	.code32
	mov	$CONSOLE, %edi
	movl	$0, STATUS(%edi)	# reset
	movl	$1, STATUS(%edi)	# ACKNOWLEDGE
	movl	$3, STATUS(%edi)	# DRIVER
	movl	$1, FEATURESSEL(%edi)
	movl	$1, FEATURES(%edi)	# bit 32, VERSION_1, and nothing else
	movl	$0, FEATURESSEL(%edi)
	movl	$0, FEATURES(%edi)
	movl	$0xb, STATUS(%edi)	# FEATURES_OK
	movl	$1, QUEUESEL(%edi)	# the transmit queue
	movl	$64, QUEUENUM(%edi)
	movl	$DESC, QUEUEDESC(%edi)
	movl	$AVAIL, QUEUEDRIVER(%edi)
	movl	$USED, QUEUEDEVICE(%edi)
	movl	$1, QUEUEREADY(%edi)
	movl	$0xf, STATUS(%edi)	# DRIVER_OK

	movzwl	%bx, %ecx		# how many are left
	mov	$text, %esi
next:	mov	%esi, DESC		# descriptor 0: the address of a byte,
	movl	$1, DESC + 8		# its length; the head in the ring is 0
	incw	AVAIL + 2		# one more is available
	movl	$1, NOTIFY(%edi)	# queue 1
wait:	pause
	mov	USED + 2, %ax		# memory: no exit
	cmp	AVAIL + 2, %ax
	jne	wait
	inc	%esi
	loop	next
	hlt

text:	.ascii	"an exit is a walk to the door; a ring of buffers is one for all."
