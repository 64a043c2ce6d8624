# A boot loader: to start a bzImage by the 32-bit boot protocol.
	.set	PARAMS, 0x20000		# boot_params, a page of zeros so far
	.set	LOAD, 0x100000		# where the protected-mode part goes

	.code32				# protected mode, flat segments
	# EAX: the bzImage, as it is in its file; EBX, ECX: where the initial RAM
	# disk is, and its size; EDX: the end of RAM, which begins at 0 and has
	# nothing for the kernel between 0x9fc00 and 0x100000.
	mov	%eax, %ebp

	# To do:
	# the setup header into boot_params; type_of_loader, ramdisk_image and
	# ramdisk_size, cmd_line_ptr; the E820 map;
	# the protected-mode part to LOAD;
	# the segments and registers that the protocol wants.

	hlt				# ljmp	$0x10, $LOAD

cmdline: .asciz	"console=ttyS0 panic=-1"
	.balign	8
gdt:	.quad	0, 0
	.quad	0x00cf9b000000ffff	# 0x10: code
	.quad	0x00cf93000000ffff	# 0x18: data
gdtr:	.word	31
	.long	gdt
