package updatecmd

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// Unit is the transient unit in which an update goes on when whoever began it has
// gone away: a line that drops, a terminal that closes.
const Unit = "gatehouse-update.service"

// detach goes on as a unit of the machine's manager, shows what that says, and ends
// as it ends: it does not return. Without a manager, or the right to ask it, it does.
func detach() error {
	if _, err := os.Stat("/run/systemd/system"); err != nil || os.Geteuid() != 0 {
		return nil
	}
	runner, err := exec.LookPath("systemd-run")
	if err != nil {
		return fmt.Errorf("cannot begin: %w (--here does without)", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find this program: %w", err)
	}
	args := []string{runner, "--quiet", "--collect", "--wait", "--pipe", "--same-dir", "--service-type=exec", "--unit=" + Unit,
		"--description=Update of Gatehouse",
		// Killed in the middle: undone at once, and not at the machine's next start.
		"--property=OnFailure=gatehouse-update-resume.service"}
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		if v := os.Getenv(name); v != "" {
			args = append(args, "--setenv="+name+"="+v)
		}
	}
	args = append(append(append(args, "--", self), os.Args[1:]...), "--here")
	return fmt.Errorf("cannot start %s: %w", Unit, syscall.Exec(runner, args, os.Environ()))
}
