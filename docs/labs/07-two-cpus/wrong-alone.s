# CPU 0 says all the numbers by itself.
	.code32
	mov	$0x3f8, %dx
	mov	$'0', %al
next:	out	%al, (%dx)
	inc	%al
	dec	%ebx
	jnz	next
	mov	$'\n', %al
	out	%al, (%dx)
	hlt
