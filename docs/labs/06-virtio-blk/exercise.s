# Read the sector whose number is in EAX, and say its text, which ends by a zero.
# The driver stops where it has just found its device.
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

	# To do:
	# accept VERSION_1 and set FEATURES_OK; look whether it stays;
	# give the device queue 0, of 4 descriptors, and set DRIVER_OK;
	# chain three descriptors: header, data, status byte;
	# put the chain into the available ring, notify, wait for the used ring.

	mov	$DATA, %esi
	mov	$0x3f8, %dx
next:	lodsb
	test	%al, %al
	jz	done
	out	%al, (%dx)
	jmp	next
done:	hlt
