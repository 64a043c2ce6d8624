package virtio

import (
	"encoding/json"
	"errors"
	"fmt"
)

// stateVersion is the version of the document that State writes.
const stateVersion = 1

// State is a transport's part of a snapshot.
type State struct {
	Version        int
	ID             DeviceID
	Status         uint8
	DriverFeatures uint64
	DeviceSel      uint32
	DriverSel      uint32
	QueueSel       uint32
	ConfigVector   uint16
	Interrupt      uint8 // interrupt status
	Generation     uint32
	Queues         []QueueState
	Device         json.RawMessage `json:",omitempty"` // of a Stater
	Function       json.RawMessage `json:",omitempty"` // of a PCI function
}

// QueueState is one queue's part of a snapshot.
type QueueState struct {
	Size                uint16
	Ready               bool
	Desc, Avail, Used   uint64
	Vector              uint16
	NextAvail, NextUsed uint16
}

var errNotPaused = errors.New("not paused")

// save is State with mu held.
func (c *core) save() (*State, error) {
	if !c.paused || c.run != nil {
		return nil, errNotPaused
	}
	s := &State{
		Version: stateVersion, ID: c.spec.ID, Status: uint8(c.status.Load()), DriverFeatures: c.driverFeatures,
		DeviceSel: c.deviceSel, DriverSel: c.driverSel, QueueSel: c.queueSel, ConfigVector: uint16(c.configVector.Load()),
		Interrupt: uint8(c.isr.Load()), Generation: c.generation.Load(),
	}
	for i := range c.queues {
		q := &c.queues[i]
		qs := QueueState{Size: q.size, Ready: q.ready, Desc: q.desc, Avail: q.avail, Used: q.used, Vector: uint16(c.vectors[i].Load())}
		if q.live != nil {
			qs.NextAvail, qs.NextUsed = q.live.indices()
		}
		s.Queues = append(s.Queues, qs)
	}
	if d, ok := c.dev.(Stater); ok {
		b, err := d.State()
		if err != nil {
			return nil, err
		}
		s.Device = b
	}
	return s, nil
}

// load is SetState with mu held. Where it fails, the device is as after a
// reset.
func (c *core) load(s *State) error {
	if !c.paused || c.run != nil {
		return errNotPaused
	}
	if err := c.fits(s); err != nil {
		return err
	}
	c.clear()
	if d, ok := c.dev.(Stater); ok {
		if err := d.SetState(s.Device); err != nil {
			return err
		}
	}
	c.driverFeatures = s.DriverFeatures
	c.deviceSel, c.driverSel, c.queueSel = s.DeviceSel, s.DriverSel, s.QueueSel
	c.configVector.Store(uint32(s.ConfigVector))
	for i, qs := range s.Queues {
		q := &c.queues[i]
		q.size, q.ready, q.desc, q.avail, q.used = qs.Size, qs.Ready, qs.Desc, qs.Avail, qs.Used
		c.vectors[i].Store(uint32(qs.Vector))
	}
	if s.Status&StatusDriverOK != 0 && s.Status&StatusNeedsReset == 0 {
		if err := c.makeQueues(s.Queues); err != nil {
			c.clear()
			return err
		}
	}
	c.isr.Store(uint32(s.Interrupt & (isrQueue | isrConfig)))
	c.generation.Store(s.Generation)
	c.status.Store(uint32(s.Status))
	return nil
}

// fits says whether s was saved from a device like this one.
func (c *core) fits(s *State) error {
	const ok = StatusFeaturesOK | StatusDriverOK
	switch {
	case s.Version != stateVersion:
		return fmt.Errorf("state of version %d, and this is version %d", s.Version, stateVersion)
	case s.ID != c.spec.ID:
		return fmt.Errorf("state of a device of type %d, and this is of type %d", s.ID, c.spec.ID)
	case len(s.Queues) != len(c.queues):
		return fmt.Errorf("state of %d queues, and this has %d", len(s.Queues), len(c.queues))
	case s.DriverFeatures&^c.offered != 0 && s.Status&StatusFeaturesOK != 0:
		return fmt.Errorf("the driver uses features %#x that this device does not offer", s.DriverFeatures&^c.offered)
	case s.Status&^(driverStatus|StatusNeedsReset) != 0 || s.Status&ok == StatusDriverOK && s.Status&StatusNeedsReset == 0:
		return fmt.Errorf("status %#x that no device has", s.Status)
	}
	for i, q := range s.Queues {
		if q.Ready && q.Size > c.spec.QueueMax[i] {
			return fmt.Errorf("queue %d of %d entries, and this has %d", i, q.Size, c.spec.QueueMax[i])
		}
	}
	return nil
}

// State implements Transport.
func (c *core) State() ([]byte, error) { return c.marshal(nil) }

// marshal saves the state with what the transport adds.
func (c *core) marshal(add func(*State) error) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.save()
	if err == nil && add != nil {
		err = add(s)
	}
	if err != nil {
		return nil, fmt.Errorf("virtio device %s: save: %w", c.spec.Name, err)
	}
	return json.Marshal(s)
}

// SetState implements Transport.
func (c *core) SetState(state []byte) error { return c.unmarshal(state, nil) }

func (c *core) unmarshal(state []byte, take func(*State) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := new(State)
	err := json.Unmarshal(state, s)
	if err == nil {
		err = c.load(s)
	}
	if err == nil && take != nil {
		err = take(s)
	}
	if err != nil {
		return fmt.Errorf("virtio device %s: restore: %w", c.spec.Name, err)
	}
	return nil
}
