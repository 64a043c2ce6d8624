// portio N: the bare round trip of a port-I/O exit, with nothing of a VMM around
// KVM_RUN. A guest in 64-bit mode does N times out %al, $0x11; dec; jnz. Prints
// the nanoseconds of one.
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

enum { RAM = 2 << 20, CODE = 0x10000, PML4 = 0x4000, PDPT = 0x5000, PD = 0x6000, GDT = 0x1000 };

static long must(long result, const char *what)
{
	if (result < 0) {
		perror(what);
		exit(1);
	}
	return result;
}

static void enter_long_mode(int cpu, uint8_t *ram)
{
	uint64_t *pml4 = (void *)(ram + PML4), *pdpt = (void *)(ram + PDPT), *pd = (void *)(ram + PD), *gdt = (void *)(ram + GDT);
	struct kvm_segment code = { .limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1 };
	struct kvm_segment data = { .limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1 };
	struct kvm_regs r = { .rip = CODE, .rsp = 0x20000, .rflags = 2 };
	struct kvm_sregs s;

	pml4[0] = PDPT | 3, pdpt[0] = PD | 3, pd[0] = 0x83;
	gdt[1] = 0x00af9b000000ffff, gdt[2] = 0x00cf93000000ffff;
	must(ioctl(cpu, KVM_GET_SREGS, &s), "KVM_GET_SREGS");
	s.cr3 = PML4, s.cr4 = 0x620, s.cr0 = 0x80050033, s.efer = 0xd01;
	s.gdt.base = GDT, s.gdt.limit = 0x17;
	s.cs = code, s.ds = s.es = s.fs = s.gs = s.ss = data;
	must(ioctl(cpu, KVM_SET_SREGS, &s), "KVM_SET_SREGS");
	must(ioctl(cpu, KVM_SET_REGS, &r), "KVM_SET_REGS");
}

int main(int argc, char **argv)
{
	uint8_t code[] = { 0xb9, 0, 0, 0, 0, 0xe6, 0x11, 0xff, 0xc9, 0x75, 0xfa, 0xe6, 0x10, 0xf4 };
	uint32_t n = argc > 1 ? atoi(argv[1]) : 10000;
	int kvm = must(open("/dev/kvm", O_RDWR), "/dev/kvm"), vm = must(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	uint8_t *ram = mmap(0, RAM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct kvm_userspace_memory_region region = { .memory_size = RAM, .userspace_addr = (uint64_t)ram };
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof *cpuid + 256 * sizeof(struct kvm_cpuid_entry2));
	struct timespec a, b;
	struct kvm_run *run;
	int cpu;

	memcpy(code + 1, &n, sizeof n);
	memcpy(ram + CODE, code, sizeof code);
	must(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
	cpu = must(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	run = mmap(0, must(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE"), PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
	cpuid->nent = 256;
	must(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid), "KVM_GET_SUPPORTED_CPUID");
	must(ioctl(cpu, KVM_SET_CPUID2, cpuid), "KVM_SET_CPUID2");
	enter_long_mode(cpu, ram);

	clock_gettime(CLOCK_MONOTONIC, &a);
	do {
		must(ioctl(cpu, KVM_RUN, 0), "KVM_RUN");
		if (run->exit_reason != KVM_EXIT_IO) {
			fprintf(stderr, "exit %u\n", run->exit_reason);
			return 1;
		}
	} while (run->io.port == 0x11);
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("%.1f\n", ((b.tv_sec - a.tv_sec) * 1e9 + b.tv_nsec - a.tv_nsec) / n);
	return 0;
}
