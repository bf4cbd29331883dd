package uplink

import (
	"strings"
	"testing"

	"gatehouse/edge"
)

// What the gate refused of the server's is for a person, too.
func TestAlertOf(t *testing.T) {
	const head = `{"v":1,"kind":"%k","t":1,"off":0,"boot":"b","mono":1,"clock":"synced","data":%d}`
	for _, c := range []struct{ kind, data, code, text string }{
		{"policy", `{"policy":"p","from":"server","refused":"it is older than the one in force, 7"}`, "policy_refused", "it is older than the one in force, 7"},
		{"policy", `{"policy":"p","from":"server","refused":"` + strings.Repeat("x", 3000) + `"}`, "policy_refused", strings.Repeat("x", maxAlertText)},
		{"policy", `{"policy":"p","from":"server"}`, "", ""},
		{"registry", `{"from":"server","what":"manifest","refused":"no trusted key"}`, "registry_refused", "no trusted key"},
		{"alert", `{"alert":"tamper","open":true}`, "tamper", "tamper"},
		{"start", `{"version":"1","refused":"x"}`, "", ""},
	} {
		line := strings.NewReplacer("%k", c.kind, "%d", c.data).Replace(head)
		a, ok := alertOf(edge.Stored{Line: []byte(line)})
		if ok != (c.code != "") || a.Code != c.code || a.Text != c.text {
			t.Errorf("%s %.60s: %q, %.60q", c.kind, c.data, a.Code, a.Text)
		}
	}
}
