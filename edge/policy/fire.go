package policy

import (
	"maps"
	"slices"
	"strings"

	"gatehouse/device/options"
	"gatehouse/edge"
)

// Fire is no matter of a policy: a lane never asks one while the fire panel holds
// its passage open. So nothing in a policy is called by that name, as if it had a
// say in it, and no rule restricts who leaves while a plan for fires is in force.

const fireLaw = "fire egress is above every policy; no rule restricts it"

// ofFire reports whether a name has fire as one of its parts: fire_exit,
// plan.fire, lane.fire; not firewood.
func ofFire(name string) bool {
	return slices.Contains(strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return strings.ContainsRune("._- ", r) }), "fire") ||
		strings.Contains(name, "火灾") || strings.Contains(name, "消防")
}

// fire refuses a rule that reaches for it.
func (l *loader) fire(n options.Node, r *ruleFile, out *rule) {
	named := ofFire(r.ID) || ofFire(string(r.Reason))
	for _, m := range r.Marks {
		named = named || ofFire(m.Set)
	}
	if named {
		l.bad(n, "rule %q: %s", r.ID, fireLaw)
		return
	}
	if out.kind != "restrict" || out.scope.Direction == edge.In {
		return
	}
	for _, v := range out.literals["plan.name"] {
		if s, ok := v.(string); ok && ofFire(s) {
			l.bad(n.At("when"), "rule %q: it restricts who leaves under the plan %q: %s", r.ID, s, fireLaw)
		}
	}
}

// fireNames refuses what is declared under that name.
func (l *loader) fireNames(root options.Node, f *file) {
	for key, names := range map[string][]string{"parameters": keys(f.Params), "counters": keys(f.Counters), "answers": keys(f.Answers), "slots": keys(f.Slots)} {
		for _, name := range names {
			if ofFire(name) {
				l.bad(root.At(key).At(name), "%q: %s", name, fireLaw)
			}
		}
	}
}

func keys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
