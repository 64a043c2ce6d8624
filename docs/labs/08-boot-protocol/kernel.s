# A bzImage as small as they come: the setup header at its place, and a kernel
# that says its command line and halts. The check's kernels are made of it.
	.set	SETUP, 2 * 512		# boot sector and one setup sector

	.ascii	"MZ"			# firmware takes a bzImage for a program of its own
	.org	0x1ef
	.byte	0xff, 0xff		# 0x1ef sentinel: tells a loader that copies too much
	.byte	1			# 0x1f1 setup_sects
	.word	1			# 0x1f2 root_flags
	.long	(end - start + 15) / 16	# 0x1f4 syssize: of the protected-mode part, in 16 bytes
	.word	0			# 0x1f8 ram_size
	.word	0xffff			# 0x1fa vid_mode
	.word	0			# 0x1fc root_dev
	.word	0xaa55			# 0x1fe boot_flag
	.byte	0xeb, header_end - 0x8202	# 0x200 jump: its second byte says where the header ends
	.ascii	"HdrS"			# 0x202
	.word	0x020f			# 0x206 version 2.15
	.long	0			# 0x208 realmode_swtch
	.word	0x1000			# 0x20c start_sys_seg
	.word	0			# 0x20e kernel_version
	.byte	0			# 0x210 type_of_loader
	.byte	1			# 0x211 loadflags: LOADED_HIGH
	.word	0x8000			# 0x212 setup_move_size
	.long	0x100000		# 0x214 code32_start
	.long	0, 0			# 0x218 ramdisk_image, ramdisk_size
	.long	0			# 0x220 bootsect_kludge
	.word	0			# 0x224 heap_end_ptr
	.byte	0, 0			# 0x226 ext_loader_ver, ext_loader_type
	.long	0			# 0x228 cmd_line_ptr
	.long	0x7fffffff		# 0x22c initrd_addr_max
	.long	0x100000		# 0x230 kernel_alignment
	.byte	0, 0			# 0x234 relocatable_kernel, min_alignment
	.word	0			# 0x236 xloadflags: no 64-bit entry
	.long	2047			# 0x238 cmdline_size
	.long	0			# 0x23c hardware_subarch
	.quad	0			# 0x240 hardware_subarch_data
	.long	0, 0			# 0x248 payload_offset, payload_length
	.quad	0			# 0x250 setup_data
	.quad	0x100000		# 0x258 pref_address
	.long	0x200000		# 0x260 init_size
	.long	0, 0			# 0x264 handover_offset, kernel_info_offset
header_end:

	.org	SETUP
	.code32
start:	mov	0x228(%esi), %ecx	# cmd_line_ptr of boot_params
	mov	$0x3f8, %dx
	mov	$255, %ah		# not more of it than this
next:	mov	(%ecx), %al
	test	%al, %al
	jz	said
	out	%al, (%dx)
	inc	%ecx
	dec	%ah
	jnz	next
said:	mov	$'\n', %al
	out	%al, (%dx)
	hlt
end:
