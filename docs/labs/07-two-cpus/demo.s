# CPU 0 starts CPU 1, which says so.
	.set	LAPIC, 0xfee00000	# each CPU sees its own local APIC here
	.set	ICR, 0x300		# interrupt command: what, and to whom in ICR + 0x10
	.set	FLAG, 0x6000

	.code32				# protected mode, flat segments
	mov	$LAPIC, %esi
	movl	$1 << 24, ICR + 0x10(%esi)	# to the APIC with id 1:
	movl	$0x4500, ICR(%esi)		# INIT
	movl	$0x4609, ICR(%esi)		# start-up, vector 9: at page 9
wait:	pause
	cmpl	$1, FLAG
	jne	wait
	mov	$0x3f8, %dx
	mov	$'\n', %al
	out	%al, (%dx)
	hlt

	.balign	0x1000			# 0x9000, page 9
	.code16				# a CPU starts in real mode
	mov	$0x3f8, %dx
	mov	$'1', %al
	out	%al, (%dx)
	movl	$1, FLAG
	hlt
