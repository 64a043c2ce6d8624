# The solution without the UART's interrupt enabled.
	.set	DATA, 0x3f8
	.set	ENABLE, 0x3f9
	.set	IDENT, 0x3fa
	.set	MODEM, 0x3fc
	.set	PIC, 0x20
	.set	PICDATA, 0x21

	.code16
	lidt	idtr
	movw	$receive, 4 * 0x24	# vector 0x24: offset,
	movw	$0, 4 * 0x24 + 2	# segment

	mov	$0x11, %al		# ICW1: begin; edge-triggered, two PICs, ICW4 follows
	out	%al, $PIC
	mov	$0x20, %al		# ICW2: line 0 is vector 0x20, so line 4 is 0x24
	out	%al, $PICDATA
	mov	$4, %al			# ICW3: the other PIC is on line 2
	out	%al, $PICDATA
	mov	$1, %al			# ICW4: 8086 mode
	out	%al, $PICDATA
	mov	$0xef, %al		# mask all lines but 4
	out	%al, $PICDATA

	mov	$MODEM, %dx
	mov	$0x0b, %al		# DTR, RTS and OUT2
	out	%al, (%dx)

sleep:	sti				# takes effect after the next instruction:
	hlt				# no interrupt comes between the two
	cli
	cmp	$'\n', %bl
	jne	sleep
	hlt

receive:
	push	%ax
	push	%dx
	mov	$IDENT, %dx		# is there a reason for this interrupt?
	in	(%dx), %al
	test	$1, %al
	jnz	end
	mov	$DATA, %dx
	in	(%dx), %al		# the UART's reason is gone once this is read
	out	%al, (%dx)
	mov	%al, %bl
end:	mov	$0x20, %al		# end of interrupt
	out	%al, $PIC
	pop	%dx
	pop	%ax
	iretw

idtr:	.word	0x3ff
	.long	0
