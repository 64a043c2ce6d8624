# Says what the device at the first virtio-mmio slot is.
	.set	DEVICE, 0xd0000000
	.set	MAGIC, 0x000		# MagicValue: "virt"
	.set	DEVICEID, 0x008
	.set	CAPACITY, 0x100		# configuration space of a disk: sectors

	.code32				# protected mode, flat segments
	mov	$DEVICE, %esi
	mov	$0x3f8, %dx
	mov	MAGIC(%esi), %ebx	# an exit: there is no memory here
	mov	$4, %ecx
byte:	mov	%bl, %al
	out	%al, (%dx)
	shr	$8, %ebx
	loop	byte
	mov	$' ', %al
	out	%al, (%dx)
	mov	DEVICEID(%esi), %eax
	add	$'0', %al
	out	%al, (%dx)
	mov	$' ', %al
	out	%al, (%dx)
	mov	CAPACITY(%esi), %eax
	add	$'0', %al
	out	%al, (%dx)
	mov	$'\n', %al
	out	%al, (%dx)
	hlt
