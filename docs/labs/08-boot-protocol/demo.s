# Reads a bzImage's setup header: EAX is where the file is in memory.
	.code32				# protected mode, flat segments
	mov	%eax, %ebx
	mov	$0x3f8, %dx
	lea	0x202(%ebx), %esi	# header: "HdrS"
	mov	$4, %ecx
	rep outsb
	mov	$' ', %al
	out	%al, (%dx)
	mov	0x207(%ebx), %al	# version, the high byte: 2
	add	$'0', %al
	out	%al, (%dx)
	mov	$' ', %al
	out	%al, (%dx)
	mov	0x1f1(%ebx), %al	# setup_sects
	add	$'0', %al
	out	%al, (%dx)
	mov	$'\n', %al
	out	%al, (%dx)
	hlt
