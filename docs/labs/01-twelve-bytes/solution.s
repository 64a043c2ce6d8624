# Counts down from the digit in AX to 0.
	.code16
	mov	$0x3f8, %dx
	add	$'0', %al
next:	out	%al, (%dx)
	dec	%al
	cmp	$'0', %al	# unsigned: '0' is the last digit that is said
	jae	next
	mov	$'\n', %al
	out	%al, (%dx)
	hlt
