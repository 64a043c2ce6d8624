# Twelve bytes that add, speak and stop. AX and BX are set before they begin.
	.code16
	mov	$0x3f8, %dx	# COM1, the transmitter
	add	%bl, %al
	add	$'0', %al	# a number below ten becomes its digit
	out	%al, (%dx)	# leaves the guest: the VMM takes the byte
	mov	$'\n', %al
	out	%al, (%dx)
	hlt			# with interrupts off, for ever
