package main

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/vitrine-vmm/vitrine/vmm/control"
)

// Words of the names that machines get whose user gives none.
var (
	firstWords = []string{
		"amber", "bold", "brisk", "calm", "clear", "cool", "crisp", "deft", "eager", "early", "fair", "fine", "fond", "frank", "fresh", "glad",
		"gold", "grand", "green", "happy", "keen", "kind", "light", "lucid", "mild", "neat", "noble", "plain", "proud", "quick", "quiet", "rapid",
		"ready", "round", "royal", "sharp", "shy", "sleek", "slim", "smart", "solid", "spry", "still", "stout", "sunny", "sure", "swift", "tidy",
		"true", "vivid", "warm", "wise",
	}
	lastWords = []string{
		"alder", "aspen", "badger", "beech", "birch", "brook", "cedar", "cliff", "cloud", "coral", "crane", "delta", "ember", "falcon", "fern", "finch",
		"fjord", "glade", "grove", "harbor", "hazel", "heron", "island", "ivy", "lake", "lark", "laurel", "linden", "lynx", "maple", "marsh", "meadow",
		"moss", "oak", "otter", "owl", "pine", "pond", "quartz", "raven", "reed", "ridge", "river", "robin", "rowan", "shore", "spruce", "stone",
		"swan", "tern", "thistle", "tulip", "vale", "willow", "wren",
	}
)

// claimName takes the name for a machine, or makes one up if it is "".
func claimName(dir *control.Dir, name string) (*control.Claim, error) {
	if name != "" {
		return dir.Claim(name)
	}
	for range 100 {
		name := firstWords[rand.IntN(len(firstWords))] + "-" + lastWords[rand.IntN(len(lastWords))]
		c, err := dir.ClaimNew(name)
		var inUse *control.InUseError
		if !errors.As(err, &inUse) {
			return c, err
		}
	}
	name = fmt.Sprintf("machine-%08x", rand.Uint32())
	return dir.ClaimNew(name)
}
