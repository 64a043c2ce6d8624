# Echoes a line by polling: asks the UART again and again whether a byte came.
	.code16
	mov	$0x3fc, %dx	# modem control: DTR, RTS and OUT2
	mov	$0x0b, %al
	out	%al, (%dx)
next:	mov	$0x3fd, %dx	# line status
wait:	in	(%dx), %al
	test	$1, %al		# data ready
	jz	wait
	mov	$0x3f8, %dx
	in	(%dx), %al	# receiver buffer
	out	%al, (%dx)	# transmitter
	cmp	$'\n', %al
	jne	next
	hlt
