# The solution, but it stops one digit early.
	.code16
	mov	$0x3f8, %dx
	add	$'0', %al
next:	out	%al, (%dx)
	dec	%al
	cmp	$'0', %al
	ja	next
	mov	$'\n', %al
	out	%al, (%dx)
	hlt
