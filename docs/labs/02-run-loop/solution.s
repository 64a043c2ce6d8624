# Asks once, keeps the answer in AL, and counts in CX.
	.code16
	mov	%bx, %cx
	mov	$0x510, %dx
	in	(%dx), %al
	mov	$0x3f8, %dx
next:	out	%al, (%dx)
	loop	next
	hlt
