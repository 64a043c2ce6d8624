# Echo a line up to its newline, then halt. Sleep in HLT until the UART
# interrupts. This one polls, and its handler is not there yet.
	.set	DATA, 0x3f8		# COM1: receiver buffer and transmitter
	.set	ENABLE, 0x3f9		# interrupt enable: bit 0 is received data
	.set	IDENT, 0x3fa		# interrupt identification: bit 0 is clear if there is a reason
	.set	MODEM, 0x3fc		# modem control
	.set	STATUS, 0x3fd		# line status: bit 0 is data ready
	.set	PIC, 0x20		# commands
	.set	PICDATA, 0x21		# mask, and the initialisation words after the first

	.code16
	lidt	idtr			# real mode: vectors are at address 0, four bytes each
	mov	$MODEM, %dx
	mov	$0x0b, %al		# DTR, RTS and OUT2: the line is open
	out	%al, (%dx)

next:	mov	$STATUS, %dx
wait:	in	(%dx), %al
	test	$1, %al
	jz	wait
	mov	$DATA, %dx
	in	(%dx), %al
	out	%al, (%dx)
	cmp	$'\n', %al
	jne	next
	hlt

idtr:	.word	0x3ff
	.long	0
