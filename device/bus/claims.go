package bus

import (
	"maps"
	"slices"
)

// Claims lists what is claimed, sorted, in the words of InUseError: paths of
// device nodes, names of GPIO lines, "i2c-1 address 0x5a", "input device NAME".
func (b *Bus) Claims() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.claims))
}
