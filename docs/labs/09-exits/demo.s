# The same work done with and without exits. A mark on the debug port, 0x21 and
# up, begins each part; vitrine lab run 9 counts and times what lies between.
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
	.set	TIMES, 256
	.set	LENGTH, 64

	.macro	mark	n
	mov	$0x510, %dx
	mov	$\n, %al
	out	%al, (%dx)
	.endm

	.code32
	mov	$0x7000, %esp
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

	mark	0x21			# OUT to a port: COM1's scratch register
	mov	$TIMES, %ecx
	mov	$0x3ff, %dx
1:	out	%al, (%dx)
	dec	%ecx
	jnz	1b

	mark	0x22			# a register in memory, read
	mov	$TIMES, %ecx
1:	mov	INTERRUPT(%edi), %eax
	dec	%ecx
	jnz	1b

	mark	0x23			# a notification; the ring is empty
	mov	$TIMES, %ecx
1:	movl	$1, NOTIFY(%edi)
	dec	%ecx
	jnz	1b

	mark	0x24			# a look at the used ring
	mov	$TIMES, %ecx
1:	mov	USED + 2, %ax
	dec	%ecx
	jnz	1b

	mark	0x25			# the text by the serial port
	mov	$text, %esi
	mov	$LENGTH, %ecx
	mov	$0x3f8, %dx
1:	lodsb
	out	%al, (%dx)
	dec	%ecx
	jnz	1b

	mark	0x26			# by the virtio console, each byte a request
	mov	$text, %esi
	mov	$LENGTH, %ebp
1:	mov	$1, %ecx
	call	send
	inc	%esi
	dec	%ebp
	jnz	1b

	mark	0x27			# by the virtio console, one request
	mov	$text, %esi
	mov	$LENGTH, %ecx
	call	send

	mark	0x28
	mov	$0x3f8, %dx
	mov	$'\n', %al
	out	%al, (%dx)
	hlt

# send sends ECX bytes from ESI in one request, and waits until the device has
# given the buffer back, by looking at the used ring.
send:	mov	%esi, DESC		# descriptor 0; the head in the ring is 0
	mov	%ecx, DESC + 8
	incw	AVAIL + 2
	movl	$1, NOTIFY(%edi)
1:	pause
	mov	USED + 2, %ax
	cmp	AVAIL + 2, %ax
	jne	1b
	ret

text:	.ascii	"an exit is a walk to the door; a ring of buffers is one for all."
