package communitycmd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"gatehouse/device/options"
	"gatehouse/sync/community"
)

// known refuses a site, or a gate, that nobody has ever named to this server: a
// mistyped name would find nothing, and look as if nothing were there. An empty site
// is any.
func known(ctx context.Context, s *community.Server, site, gate string) error {
	sites, err := s.Sites(ctx)
	if err != nil {
		return err
	}
	var names, here, gates []string
	for _, x := range sites {
		names = append(names, x.Name)
		for _, g := range x.Gates {
			gates = append(gates, x.Name+"/"+g)
		}
		if site == "" || x.Name == site {
			here = append(here, x.Gates...)
		}
	}
	switch {
	case site != "" && !slices.Contains(names, site):
		return fmt.Errorf("no gate or roster of site %q is known%s", site, instead(site, names))
	case gate != "" && !slices.Contains(here, gate):
		name := gate
		if site != "" {
			name = site + "/" + gate
		} else {
			gates = here
		}
		return fmt.Errorf("no gate %q is known%s", name, instead(name, gates))
	}
	return nil
}

// instead names the nearest of the known names, and all when they are few.
func instead(got string, names []string) string {
	if len(names) == 0 {
		return ": this store has none yet"
	}
	hint := ""
	if near := options.Nearest(got, names); near != "" {
		hint = fmt.Sprintf(", did you mean %q?", near)
	}
	const most = 20
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	more := ""
	if len(names) > most {
		names, more = names[:most], ", ..."
	}
	return hint + " (known are: " + strings.Join(names, ", ") + more + ")"
}
