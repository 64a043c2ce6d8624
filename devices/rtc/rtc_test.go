package rtc

import (
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/bus"
)

var _ bus.Device = (*Device)(nil)

// chip is a clock chip whose clock stands where the test puts it.
type chip struct {
	*Device
	now time.Time
}

func newChip(now time.Time) *chip {
	c := &chip{now: now}
	c.Device = New(func() time.Time { return c.now }, 3<<30, 5<<30)
	return c
}

func (c *chip) get(r uint8) uint8 {
	c.Write(Index, []byte{r})
	p := []byte{0}
	c.Read(Data, p)
	return p[0]
}

func (c *chip) set(r, v uint8) {
	c.Write(Index, []byte{r})
	c.Write(Data, []byte{v})
}

func (c *chip) expect(t *testing.T, r, want uint8) {
	t.Helper()
	if got := c.get(r); got != want {
		t.Errorf("register %#x: %#x, want %#x", r, got, want)
	}
}

var afternoon = time.Date(2031, time.December, 28, 15, 49, 58, 400e6, time.UTC) // a Sunday

func TestTimeInBCD(t *testing.T) {
	c := newChip(afternoon.In(time.FixedZone("elsewhere", 3600)))
	for r, want := range map[uint8]uint8{
		regSeconds: 0x58, regMinutes: 0x49, regHours: 0x15, regWeekday: 1,
		regDay: 0x28, regMonth: 0x12, regYear: 0x31, Century: 0x20,
	} {
		c.expect(t, r, want)
	}
}

func TestTimeInBinary(t *testing.T) {
	c := newChip(afternoon)
	c.set(regB, b24Hours|bBinary)
	for r, want := range map[uint8]uint8{
		regSeconds: 58, regMinutes: 49, regHours: 15, regDay: 28, regMonth: 12, regYear: 31, Century: 20,
	} {
		c.expect(t, r, want)
	}
}

func TestTwelveHours(t *testing.T) {
	for hour, want := range map[int]uint8{0: 0x12, 1: 0x01, 11: 0x11, 12: 0x92, 13: 0x81, 23: 0x91} {
		c := newChip(time.Date(2030, 1, 1, hour, 0, 0, 0, time.UTC))
		c.set(regB, 0)
		c.expect(t, regHours, want)
		// What was read, written back, is the same time.
		c.set(regHours, want)
		c.set(regB, b24Hours|bBinary)
		c.expect(t, regHours, uint8(hour))
	}
}

func TestRegistersAToD(t *testing.T) {
	c := newChip(afternoon)
	c.expect(t, regA, aDefault)
	c.expect(t, regB, b24Hours)
	c.expect(t, regC, 0)
	c.expect(t, regD, dValid)
	c.set(regA, 0xff)
	c.expect(t, regA, 0x7f)
	c.set(regD, 0)
	c.expect(t, regD, dValid)
	c.now = c.now.Add(time.Second)
	c.expect(t, regC, cUpdated)
	c.expect(t, regC, 0)
}

func TestUpdateInProgress(t *testing.T) {
	c := newChip(afternoon.Truncate(time.Second).Add(time.Second - 200*time.Microsecond))
	c.expect(t, regA, aUpdating|aDefault)
	c.set(regB, bSet|b24Hours)
	c.expect(t, regA, aDefault)
	c.set(regB, b24Hours)
	c.now = afternoon
	c.expect(t, regA, aDefault)
}

func TestSettingTheTime(t *testing.T) {
	c := newChip(afternoon)
	c.set(regB, bSet|b24Hours)
	c.now = c.now.Add(time.Hour)
	c.expect(t, regHours, 0x15) // it stands still
	for r, v := range map[uint8]uint8{
		regSeconds: 0x59, regMinutes: 0x59, regHours: 0x23, regDay: 0x31, regMonth: 0x12, regYear: 0x99, Century: 0x19,
	} {
		c.set(r, v)
	}
	c.set(regB, b24Hours)
	c.expect(t, regYear, 0x99)
	c.now = c.now.Add(time.Second)
	for r, want := range map[uint8]uint8{
		regSeconds: 0, regMinutes: 0, regHours: 0, regDay: 1, regMonth: 1, regYear: 0, Century: 0x20, regWeekday: 7,
	} {
		c.expect(t, r, want)
	}
}

func TestNonsenseDoesNotSetTheTime(t *testing.T) {
	c := newChip(afternoon)
	c.set(regB, bSet|b24Hours)
	c.set(regMonth, 0xfe)
	c.set(regB, b24Hours)
	c.expect(t, regMonth, 0x12)
	c.expect(t, regMinutes, 0x49)
}

func TestMemorySizes(t *testing.T) {
	for _, m := range []struct {
		below, above     uint64
		ext, b16, above4 uint32
	}{
		{3 << 30, 5 << 30, 0xffff, (3<<30 - 16<<20) >> 16, 5 << 30 >> 16},
		{8 << 20, 0, 7 << 10, 0, 0},
		{512 << 10, 0, 0, 0, 0},
		{1 << 62, 1 << 62, 0xffff, 0xffff, 0xffffff},
	} {
		d := New(time.Now, m.below, m.above)
		c := &chip{Device: d}
		word := func(r uint8) uint32 { return uint32(c.get(r)) | uint32(c.get(r+1))<<8 }
		got := [...]uint32{word(regBaseLow), word(regExtLow), word(regExtLow2), word(regAbove16M), word(regAbove4G) | uint32(c.get(regAbove4G+2))<<16}
		if want := [...]uint32{640, m.ext, m.ext, m.b16, m.above4}; got != want {
			t.Errorf("%d and %d bytes: %x, want %x", m.below, m.above, got, want)
		}
	}
}

func TestMemoryHoldsAndIndexPortDoesNotRead(t *testing.T) {
	c := newChip(afternoon)
	c.set(0x80|0x41, 0xa5) // bit 7 is the NMI mask
	c.expect(t, 0x41, 0xa5)
	c.set(0x01, 0x30) // alarm
	c.expect(t, 0x01, 0x30)
	p := []byte{0, 0, 0}
	c.Read(Index, p)
	if p[0] != 0xff || p[1] != 0x30 || p[2] != 0xff {
		t.Errorf("three ports: %x", p)
	}
}

func TestStateGoesRound(t *testing.T) {
	c := newChip(afternoon)
	c.set(regB, b24Hours|bBinary)
	c.set(regYear, 50)
	c.set(0x40, 0x12)
	b, err := c.State()
	if err != nil {
		t.Fatal(err)
	}
	d := newChip(afternoon.Add(time.Minute))
	if err := d.SetState(b); err != nil {
		t.Fatal(err)
	}
	d.expect(t, regYear, 50)
	d.expect(t, regMinutes, 50)
	d.expect(t, 0x40, 0x12)
	for _, s := range []string{"", "{}", `{"version":1,"ram":"AA=="}`, `{"version":1,"index":200}`} {
		if d.SetState([]byte(s)) == nil {
			t.Errorf("state %q was taken", s)
		}
	}
}

func FuzzRTC(f *testing.F) {
	f.Add([]byte{0x0b, 0x80, 0x09, 0x99, 0x0b, 0x02, 0x09})
	f.Fuzz(func(t *testing.T, program []byte) {
		c := newChip(afternoon)
		for ; len(program) > 1; program = program[2:] {
			c.get(program[0])
			c.set(program[0], program[1])
			c.now = c.now.Add(time.Duration(program[1]) * time.Second)
		}
		b, err := c.State()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetState(b); err != nil {
			t.Fatal(err)
		}
	})
}
