/* What the kernel's headers expect of a libc's: nothing of it is used. */
