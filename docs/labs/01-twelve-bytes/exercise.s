# Count down from the digit in AX to 0 on COM1, then a newline, then halt.
# This one says only where it would begin.
	.code16
	mov	$0x3f8, %dx
	add	$'0', %al
	out	%al, (%dx)
	mov	$'\n', %al
	out	%al, (%dx)
	hlt
