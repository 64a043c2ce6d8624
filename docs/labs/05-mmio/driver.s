# The guest that an exercise's device is checked with. EBX: a text, ECX bytes
# long, at least 8. It goes through the device's registers in all widths, and
# says the text's sum.
	.set	DEVICE, 0xd0100000
	.set	ID, DEVICE
	.set	DATA, DEVICE + 4
	.set	SUM, DEVICE + 8
	.set	COUNT, DEVICE + 12

	.code32				# protected mode, flat segments
	mov	ID, %eax
	mov	SUM, %eax
	mov	COUNT, %eax
	mov	ID + 1, %al
	mov	ID + 2, %ax

	mov	(%ebx), %eax		# text in pieces of 1, 2, 4 bytes
	mov	%al, DATA
	mov	1(%ebx), %ax
	mov	%ax, DATA
	mov	3(%ebx), %eax
	mov	%eax, DATA
	mov	7(%ebx), %al
	mov	%al, DATA + 3
	mov	SUM, %eax
	mov	SUM, %eax		# a read changes nothing
	mov	COUNT, %eax
	mov	SUM + 3, %al
	mov	COUNT + 1, %al
	mov	DATA, %eax

	movl	$0xffffffff, SUM	# nor does a write to what is only for reading
	movl	$0, ID
	mov	SUM, %eax
	mov	ID, %eax

	movb	$0, COUNT		# anew
	mov	SUM, %eax
	mov	COUNT, %ax

	mov	%ebx, %esi
next:	lodsb
	mov	%al, DATA
	loop	next
	mov	COUNT, %eax
	mov	SUM, %ebx

	mov	$0x3f8, %dx
	mov	$8, %ecx
digit:	rol	$4, %ebx
	mov	%bl, %al
	and	$15, %al
	add	$'0', %al
	cmp	$'9', %al
	jbe	say
	add	$'a' - '0' - 10, %al
say:	out	%al, (%dx)
	loop	digit
	mov	$'\n', %al
	out	%al, (%dx)
	hlt
