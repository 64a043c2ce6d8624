/* What the kernel's headers expect of a libc's: nolibc defines it already. */
