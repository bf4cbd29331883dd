package config

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"gatehouse/device/options"
	"gatehouse/edge/text"
)

// checkDisplay checks what concerns the resident's display.
func (g *Gate) checkDisplay(n options.Node, errs *[]error) {
	for from, percent := range g.Console.Volume {
		at := n.At("volume").At(from)
		if _, err := time.Parse("15:04", from); err != nil {
			*errs = append(*errs, at.Errorf("%q is not a time of day like 21:00", from))
		}
		if percent < 0 || percent > 100 {
			*errs = append(*errs, at.Errorf("%d is not between 0 and 100", percent))
		}
	}
}

// checkLanguages checks that the display has what it is to show.
func (g *Gate) checkLanguages(root options.Node, errs *[]error) {
	known := text.Languages()
	for i, l := range g.Languages {
		switch {
		case !slices.Contains(known, l):
			*errs = append(*errs, root.At("languages").Errorf("%q is not one of the display's languages: %s", l, strings.Join(known, ", ")))
		case slices.Contains(g.Languages[:i], l):
			*errs = append(*errs, root.At("languages").Errorf("%q is there twice", l))
		}
	}
}

// maxTip is how long a tip may be, in characters, to be read at a glance.
const maxTip = 120

// ReadTips reads what an idle display tells: a list of sentences for each language.
func ReadTips(path string) (map[string][]string, error) {
	if path == "" {
		return nil, nil
	}
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the display's tips: %w", err)
	}
	var out map[string][]string
	if err := yaml.UnmarshalWithOptions(src, &out, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("%s: want a list of sentences for each language: %w", path, err)
	}
	for lang, list := range out {
		for _, t := range list {
			if n := len([]rune(t)); n == 0 || n > maxTip {
				return nil, fmt.Errorf("%s: %s: a tip has 1 to %d characters, not %d: %.60q", path, lang, maxTip, n, t)
			}
		}
	}
	return out, nil
}
