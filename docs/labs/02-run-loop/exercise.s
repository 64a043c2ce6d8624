# Say what port 0x510 answers BX times, with BX + 1 exits and BX as it was.
# This one asks anew each time, and counts in BX itself.
	.code16
next:	mov	$0x510, %dx
	in	(%dx), %al
	mov	$0x3f8, %dx
	out	%al, (%dx)
	dec	%bx
	jnz	next
	hlt
