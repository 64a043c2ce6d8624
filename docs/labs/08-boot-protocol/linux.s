# The protected-mode part of a bzImage around a Linux that is not compressed: it
# is behind this page. What is done here is done in every bzImage, between
# unpacking and the kernel proper: copy it to 16 MiB, go to long mode, jump.
	.set	BASE, 0x100000		# where loaders put it
	.set	TABLES, BASE + 0x1000	# page tables, where the kernel was before it was copied
	.set	KERNEL, 0x1000000

	.code32
start:	jmp	begin
	.balign	8
entry:	.long	0			# of the kernel proper, filled in
begin:	mov	%esi, %ebx		# boot_params
	mov	0x1f4(%esi), %ecx	# syssize: 16 bytes each
	shl	$2, %ecx
	sub	$0x400, %ecx		# but this page
	mov	$TABLES, %esi
	mov	$KERNEL, %edi
	cld
	rep movsl

	mov	$TABLES, %edi
	xor	%eax, %eax
	mov	$0x800, %ecx
	rep stosl
	movl	$TABLES + 0x1003, TABLES
	movl	$TABLES + 0x2003, TABLES + 0x1000
	mov	$TABLES + 0x2000, %edi
	mov	$0x83, %eax		# pages of 2 MiB, the first GiB
	mov	$512, %ecx
page:	mov	%eax, (%edi)
	movl	$0, 4(%edi)
	add	$0x200000, %eax
	add	$8, %edi
	loop	page

	mov	$TABLES, %eax
	mov	%eax, %cr3
	mov	%cr4, %eax
	or	$0x20, %eax		# PAE
	mov	%eax, %cr4
	mov	$0xc0000080, %ecx	# IA32_EFER
	rdmsr
	or	$0x100, %eax		# LME
	wrmsr
	lgdt	BASE + gdtr - start
	mov	%cr0, %eax
	or	$0x80000000, %eax	# PG
	mov	%eax, %cr0
	ljmp	$0x10, $BASE + long - start

	.code64
long:	mov	$0x18, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	%ebx, %esi
	xor	%ebx, %ebx
	mov	entry(%rip), %eax
	jmp	*%rax

	.balign	8
gdt:	.quad	0, 0
	.quad	0x00af9b000000ffff	# 0x10: 64-bit code
	.quad	0x00cf93000000ffff	# 0x18: data
gdtr:	.word	31
	.long	BASE + gdt - start
	.org	0x1000
