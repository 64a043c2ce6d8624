# The solution, but it does not ask: it knows the answer.
	.code16
	mov	%bx, %cx
	mov	$0x510, %dx
	mov	$0x56, %al
	mov	$0x3f8, %dx
next:	out	%al, (%dx)
	loop	next
	hlt
