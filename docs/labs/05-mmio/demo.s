# Reads the demonstration's register four times, and says what it answers.
	.set	DEVICE, 0xd0100000

	.code32				# protected mode, flat segments
	mov	$0x3f8, %dx
	mov	$4, %ecx
next:	movb	DEVICE, %al		# an exit: the device answers
	add	$'0', %al
	out	%al, (%dx)
	loop	next
	mov	$'\n', %al
	out	%al, (%dx)
	hlt
