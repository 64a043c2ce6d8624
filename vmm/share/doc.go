// Package share shows a folder of the host as a 9P2000.L file tree, for guests
// that mount it (devices/virtio/ninep).
//
// Nothing outside the folder can be reached through it. Every file is held by a
// descriptor (O_PATH), and found by one name, without symbolic links, in a
// directory that is held so: there are no paths that could be changed between
// a check and a use. Symbolic links are the guest's to follow, in its own view.
// Devices are neither made nor opened. Hard links are made between files of
// the folder only.
//
// What a guest does is done as the user who runs the VMM. Files are made
// without setuid and setgid bits, so that a guest makes no programs that give
// rights to others on the host. Extended attributes are not shown.
package share
