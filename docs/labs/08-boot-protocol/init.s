# The first program of user space: says that it is there, and waits.
	.code64
	mov	$1, %eax		# write
	mov	$1, %edi
	lea	text(%rip), %rsi
	mov	$length, %edx
	syscall
wait:	mov	$34, %eax		# pause
	syscall
	jmp	wait
text:	.ascii	"user space: loaded by hand\n"
	.set	length, . - text
