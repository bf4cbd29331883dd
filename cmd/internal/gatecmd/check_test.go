package gatecmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gatehouse/cmd/internal/config"
	"gatehouse/cmd/internal/setupcmd"
)

// Check says when the service may not open what gate.yaml names.
func TestCheckService(t *testing.T) {
	root := t.TempDir()
	conf := filepath.Join(root, "etc/gatehouse/gate.yaml")
	for path, text := range map[string]string{conf: "community: c\nsite: s\ngate: g\npolicy: p.yaml\npassages: [{name: m, barrier: {driver: relay, pin: GPIO17}}]\n" +
		"lanes: [{name: in, passage: m, direction: in, scanner: console, thermometer: none}]\n", filepath.Join(root, "usr/lib/systemd/system/gatehouse.service"): ""} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := config.Load(conf)
	if err != nil {
		t.Fatal(err)
	}
	check := func(path, want string, bad int) {
		t.Helper()
		var out strings.Builder
		r := &report{w: &out}
		checkService(r, cfg, path, root)
		if !strings.Contains(out.String(), want) || (want == "") != (out.String() == "") || r.bad != bad {
			t.Errorf("%q, %d bad; want %q", out.String(), r.bad, want)
		}
	}
	check(filepath.Join(root, "gate.yaml"), "", 0) // of no service
	check(conf, "(char-gpiochip rw, group gpio): gatehouse setup", 1)
	if err := setupcmd.Refresh(t.Context(), &strings.Builder{}, conf, root); err != nil {
		t.Fatal(err)
	}
	check(conf, "those of gate.yaml", 0)
	drop := filepath.Join(root, "etc/systemd/system/gatehouse.service.d/10-devices.conf")
	f, err := os.OpenFile(drop, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("DeviceAllow=/dev/i2c-1 rw\n"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	check(conf, "may open more than gate.yaml names (/dev/i2c-1 rw)", 0)
}
