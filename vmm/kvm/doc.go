// Package kvm is the Linux KVM API (Documentation/virt/kvm/api.rst), typed:
// System is /dev/kvm, VM a virtual machine, VCPU a virtual CPU. It is the only
// package that issues KVM ioctls.
//
// Calls that github.com/bobuhiro11/gokvm/kvm covers go through it; the rest,
// and everything on the path of an exit, are made here. gokvm hands pointers
// on as uintptr through one more call, during which a goroutine's stack may
// move; whatever is passed to it by pointer therefore lives on the heap, in
// the scratch structure of the VM or VCPU.
package kvm
