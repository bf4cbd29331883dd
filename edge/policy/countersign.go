package policy

// Countersigned gives the nearest layer above that asks for its own signature
// on the bundles of the layers below, beside the community's.
func (p *Policy) Countersigned() (layer string, ok bool) {
	for up := p.up; up != nil; up = up.up {
		if up.countersigned {
			return up.layer, true
		}
	}
	return "", false
}

// Layer is the layer that the policy is of; empty = the site's own.
func (p *Policy) Layer() string { return p.layer }
