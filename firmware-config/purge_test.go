package firmwareconfig

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// postrm runs the script of a package in a root of its own, in which the folders of mounts
// are mount points, and lists afterwards what is left there. /elsewhere and what is in it
// is never the package's.
func postrm(t *testing.T, name string, has, links, mounts []string) (left string) {
	t.Helper()
	root := t.TempDir()
	script := `set -eu
root=$1 script=$2
for m in $3; do mkdir -p "$root$m"; mount -t tmpfs tmpfs "$root$m"; done
mkdir "$root/elsewhere"
echo keep >"$root/elsewhere/keep"
for l in $4; do mkdir -p "$root${l%/*}"; ln -s "$root/elsewhere" "$root$l"; done
for f in $5; do mkdir -p "$root${f%/*}"; echo x >"$root$f"; done
DPKG_ROOT=$root sh "$script" purge || echo "the script ends with $?"
cd "$root"
find . ! -path './var/lib/systemd*' ! -path ./elsewhere \( -type f -o -type d -empty -o -type l \) | sort`
	path, err := filepath.Abs("../.package/scripts/" + name + ".postrm")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), "DPKG_ROOT") {
		t.Fatalf("%s would purge this machine: %v", path, err)
	}
	space := "-m"
	if os.Geteuid() != 0 {
		space = "-rm"
	}
	out, err := exec.Command("unshare", space, "sh", "-c", script, "sh", root, path, strings.Join(mounts, " "), strings.Join(links, " "), strings.Join(has, " ")).Output()
	if err != nil {
		t.Fatalf("%s in a mount namespace: %v", name, err)
	}
	return string(out)
}

// Purging leaves nothing of a gate, and of one whose root is never written the empty
// places at which its partition is mounted.
func TestPurge(t *testing.T) {
	var points []string
	for line := range strings.Lines(sample(t, "raspberrypi/fstab")) {
		if f := strings.Fields(line); len(f) > 1 && strings.Contains(f[1], "/gatehouse") {
			points = append(points, f[1])
		}
	}
	if len(points) != 3 {
		t.Fatalf("the table mounts %q", points)
	}
	const kept = "./elsewhere/keep\n"
	for _, c := range []struct {
		name, what         string
		has, links, mounts []string
		left               string
	}{
		{name: "gatehouse", what: "plain"},
		{name: "gatehouse", what: "read-only root", mounts: points, left: "./var/cache/gatehouse/update\n./var/lib/gatehouse\n./var/lib/gatehouse-backup\n"},
		{name: "gatehouse", what: "a link", links: []string{"/var/cache/gatehouse"}},
		{name: "communityd", what: "plain"},
		{name: "communityd", what: "a disk of its own", mounts: []string{"/var/lib/communityd"}, left: "./var/lib/communityd\n"},
	} {
		t.Run(c.name+" "+c.what, func(t *testing.T) {
			c.has = []string{"/var/lib/communityd/community.db", "/var/lib/communityd/.x/y", "/etc/communityd/keys/broker.key"}
			if c.name == "gatehouse" {
				c.has = []string{"/var/lib/gatehouse/journal.db", "/var/lib/gatehouse/of-2/journal.db", "/var/lib/gatehouse/.x/y", "/var/lib/gatehouse-backup/a.backup",
					"/var/lib/gatehouse.of-2.2.0/journal.db", "/etc/gatehouse/keys/site.key", "/etc/systemd/system/gatehouse.service.d/10-devices.conf",
					"/etc/systemd/system/gatehouse-backup.service.d/10-place.conf", "/etc/default/gatehouse-kiosk", "/etc/udev/rules.d/70-gatehouse.rules"}
				if c.links == nil {
					c.has = append(c.has, "/var/cache/gatehouse/update/gatehouse_1.0_arm64.deb")
				}
			}
			got := postrm(t, c.name, c.has, c.links, c.mounts)
			// Folders that are the system's.
			for _, d := range []string{"./etc/default", "./etc/systemd/system", "./etc/udev/rules.d", "./var/cache", "./var/lib", "./etc"} {
				got = strings.Replace(got, d+"\n", "", 1)
			}
			if got != kept+c.left {
				t.Errorf("left:\n%swant:\n%s", got, kept+c.left)
			}
		})
	}
}
