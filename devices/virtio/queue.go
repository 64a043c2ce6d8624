package virtio

// Queue is one split virtqueue (virtio 1.2 §2.7).
type Queue struct{}
