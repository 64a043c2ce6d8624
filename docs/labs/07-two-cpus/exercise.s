# EBX says how many CPUs there are. Each is to say its number, 0 first, in
# order; then CPU 0 sends a newline; all halt. CPU 0 is alone so far.
	.set	LAPIC, 0xfee00000	# each CPU sees its own local APIC here
	.set	ICR, 0x300		# interrupt command
	.set	TURN, 0x6000		# a place in memory for all of them

	.code32				# CPU 0: protected mode, flat segments
	mov	$0x3f8, %dx
	mov	$'0', %al
	out	%al, (%dx)

	# To do: start the others, and wait until they have spoken.

	mov	$'\n', %al
	out	%al, (%dx)
	hlt

	.balign	0x1000			# 0x9000: where the others are to begin
	.code16				# in real mode
	hlt
