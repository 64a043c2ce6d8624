# The solution with a code descriptor that lacks the L bit.
	.set	PML4, 0x1000
	.set	PDPT, 0x2000
	.set	PD0, 0x3000
	.set	PD1, 0x4000
	.set	PRESENT, 1
	.set	WRITABLE, 2
	.set	LARGE, 0x80		# in a page directory: a page of 2 MiB

	.code16
	movl	$(PDPT + WRITABLE + PRESENT), PML4
	movl	$(PD0 + WRITABLE + PRESENT), PDPT
	movl	$(LARGE + WRITABLE + PRESENT), PD0	# linear 0 is physical 0
	movl	$(PD1 + WRITABLE + PRESENT), PDPT + 8	# the second gigabyte
	movl	$(0x200000 + LARGE + WRITABLE + PRESENT), PD1

	mov	$PML4, %eax
	mov	%eax, %cr3
	mov	%cr4, %eax
	or	$0x20, %eax		# PAE
	mov	%eax, %cr4
	mov	$0xc0000080, %ecx	# IA32_EFER
	rdmsr
	or	$0x100, %eax		# LME: long mode once paging is on
	wrmsr
	lgdtl	gdtr
	mov	%cr0, %eax
	or	$0x80000001, %eax	# PG and PE together
	mov	%eax, %cr0
	ljmpl	$8, $long		# CS gets its L bit from the descriptor

	.code64
long:	mov	$0x40000000, %edi	# the window
	movl	$0x5452, (%rdi)
	mov	$0x3f8, %dx
	mov	$'6', %al
	out	%al, (%dx)
	mov	$'4', %al
	out	%al, (%dx)
	mov	$'\n', %al
	out	%al, (%dx)
	hlt

	.balign	8
gdt:	.quad	0
	.quad	0x00cf9b000000ffff
gdtr:	.word	15
	.long	gdt
