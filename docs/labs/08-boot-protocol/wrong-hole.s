# The solution with an E820 map of one piece, over the hole below 1 MiB.
	.set	PARAMS, 0x20000		# boot_params, a page of zeros so far
	.set	LOAD, 0x100000		# where the protected-mode part goes

	.code32				# protected mode, flat segments
	# EAX: the bzImage, as it is in its file; EBX, ECX: where the initial RAM
	# disk is, and its size; EDX: the end of RAM, which begins at 0 and has
	# nothing for the kernel between 0x9fc00 and 0x100000.
	mov	%eax, %ebp

	# boot_params: the setup header, then what the loader has to say
	push	%ecx
	movzbl	0x201(%ebp), %ecx	# the header ends at 0x202 + this byte
	add	$0x202 - 0x1f1, %ecx
	lea	0x1f1(%ebp), %esi
	mov	$PARAMS + 0x1f1, %edi
	cld
	rep movsb
	pop	%ecx
	movb	$0xff, PARAMS + 0x210	# type_of_loader: one without a number
	mov	%ebx, PARAMS + 0x218	# ramdisk_image
	mov	%ecx, PARAMS + 0x21c	# ramdisk_size
	movl	$cmdline, PARAMS + 0x228	# cmd_line_ptr

	movb	$2, PARAMS + 0x1e8	# e820_entries; each: address, size, type 1 (RAM)
	movl	$0x100000, PARAMS + 0x2d0 + 8
	movl	$1, PARAMS + 0x2d0 + 16
	movl	$0x100000, PARAMS + 0x2d0 + 20
	sub	$0x100000, %edx
	mov	%edx, PARAMS + 0x2d0 + 28
	movl	$1, PARAMS + 0x2d0 + 36

	# the protected-mode part: behind the boot sector and the setup sectors
	movzbl	0x1f1(%ebp), %esi	# setup_sects
	inc	%esi
	shl	$9, %esi
	add	%ebp, %esi
	mov	0x1f4(%ebp), %ecx	# syssize, in 16 bytes
	shl	$2, %ecx
	mov	$LOAD, %edi
	rep movsl

	# the state that the 32-bit protocol wants
	lgdt	gdtr
	mov	$0x18, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$PARAMS, %esi
	xor	%ebx, %ebx
	xor	%ebp, %ebp
	xor	%edi, %edi
	ljmp	$0x10, $LOAD

cmdline: .asciz	"console=ttyS0 panic=-1"
	.balign	8
gdt:	.quad	0, 0
	.quad	0x00cf9b000000ffff	# 0x10: code
	.quad	0x00cf93000000ffff	# 0x18: data
gdtr:	.word	31
	.long	gdt
