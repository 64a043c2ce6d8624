# The solution with 32-bit code where a CPU starts.
	.set	LAPIC, 0xfee00000
	.set	ICR, 0x300
	.set	TURN, 0x6000		# whose turn it is

	.code32				# EBX: how many CPUs there are
	mov	$0x3f8, %dx
	mov	$'0', %al
	out	%al, (%dx)
	movl	$1, TURN
	mov	$LAPIC, %esi
	movl	$0xc4500, ICR(%esi)	# INIT, to all but this one
	movl	$0xc4609, ICR(%esi)	# start-up at page 9
wait:	pause
	cmp	%ebx, TURN		# until the last one has spoken
	jne	wait
	mov	$'\n', %al
	out	%al, (%dx)
	hlt

	.balign	0x1000			# 0x9000
	mov	$1, %eax
	cpuid
	shr	$24, %ebx		# this CPU's APIC id
again:	pause
	cmp	%ebx, TURN
	jne	again
	mov	$0x3f8, %dx
	lea	'0'(%ebx), %eax
	out	%al, (%dx)
	incl	TURN			# no LOCK: only the one whose turn it is writes
	hlt
