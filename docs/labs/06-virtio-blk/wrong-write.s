# The solution with a data descriptor that the device may not write to.
	.set	DEVICE, 0xd0000000	# registers of the first virtio-mmio device
	.set	FEATURES, 0x020		# DriverFeatures, the half that
	.set	FEATURESSEL, 0x024	# DriverFeaturesSel names
	.set	QUEUESEL, 0x030
	.set	QUEUENUM, 0x038
	.set	QUEUEREADY, 0x044
	.set	NOTIFY, 0x050
	.set	STATUS, 0x070
	.set	QUEUEDESC, 0x080	# each of these three is an address of 64 bits:
	.set	QUEUEAVAIL, 0x090	# the low half, and 4 behind it the high one
	.set	QUEUEUSED, 0x0a0

	.set	DESC, 0x10000		# descriptors, 16 bytes: address, length, flags, next
	.set	AVAIL, 0x11000		# flags, index, ring of descriptor numbers: 16 bits each
	.set	USED, 0x12000		# flags, index: 16 bits each; ring
	.set	HEADER, 0x13000		# type (4 bytes), reserved (4), sector (8)
	.set	DATA, 0x14000
	.set	ANSWER, 0x15000		# status: 0 is success

	.code32				# protected mode, flat segments; EAX: the sector
	mov	%eax, HEADER + 8
	mov	$DEVICE, %esi
	movl	$0, STATUS(%esi)	# reset
	movl	$1, STATUS(%esi)	# ACKNOWLEDGE: there is a device
	movl	$3, STATUS(%esi)	# and DRIVER: it can be driven

	movl	$1, FEATURESSEL(%esi)	# the high half:
	movl	$1, FEATURES(%esi)	# bit 32, VERSION_1
	movl	$0xb, STATUS(%esi)	# and FEATURES_OK
	testl	$8, STATUS(%esi)	# which the device takes back if it disagrees
	jz	done

	movl	$0, QUEUESEL(%esi)
	movl	$4, QUEUENUM(%esi)
	movl	$DESC, QUEUEDESC(%esi)
	movl	$0, QUEUEDESC + 4(%esi)
	movl	$AVAIL, QUEUEAVAIL(%esi)
	movl	$0, QUEUEAVAIL + 4(%esi)
	movl	$USED, QUEUEUSED(%esi)
	movl	$0, QUEUEUSED + 4(%esi)
	movl	$1, QUEUEREADY(%esi)
	movl	$0xf, STATUS(%esi)	# and DRIVER_OK

	movl	$0, HEADER		# a read
	movl	$HEADER, DESC		# descriptor 0: the header, for the device to read
	movl	$16, DESC + 8
	movw	$1, DESC + 12		# NEXT:
	movw	$1, DESC + 14		# descriptor 1
	movl	$DATA, DESC + 16	# descriptor 1: the data, for it to write
	movl	$512, DESC + 24
	movw	$1, DESC + 28
	movw	$2, DESC + 30
	movl	$ANSWER, DESC + 32	# descriptor 2: the status byte
	movl	$1, DESC + 40
	movw	$2, DESC + 44		# WRITE

	movw	$0, AVAIL + 4		# the chain's first descriptor
	movw	$1, AVAIL + 2		# one chain is there: what it says is written before
	movl	$0, NOTIFY(%esi)	# queue 0 has something new
wait:	pause
	cmpw	$1, USED + 2		# the device has given it back
	jne	wait

	mov	$DATA, %esi
	mov	$0x3f8, %dx
next:	lodsb
	test	%al, %al
	jz	done
	out	%al, (%dx)
	jmp	next
done:	hlt
