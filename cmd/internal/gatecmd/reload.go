package gatecmd

import (
	"context"
	"fmt"
	"strings"

	"gatehouse/cmd/internal/app"
	"gatehouse/cmd/internal/config"
)

// status is the line of "systemctl status".
func status(a *app.App) string {
	return fmt.Sprintf("%d lanes, policy %s", len(a.Lanes.Views()), a.Policies.Hash())
}

// reload reads the configuration again for the running gate, and says what became
// of it.
func reload(ctx context.Context, a *app.App, path string, n *app.Notifier) {
	n.Reloading()
	cfg, err := config.Load(path)
	var restart []string
	if err == nil {
		restart, err = a.Reload(ctx, cfg)
	}
	switch {
	case err != nil:
		n.Log.Error("the new configuration is refused; what was in force stays in force", "err", err, "hint", "gatehouse check says line by line what is wrong; then: systemctl reload gatehouse")
		n.Ready(status(a) + "; a new configuration was REFUSED, see the log")
	case len(restart) > 0:
		keys := strings.Join(restart, ", ")
		n.Log.Warn("the configuration is read again; a part of it needs a restart", "needs_restart", keys, "hint", "systemctl restart gatehouse")
		n.Ready(status(a) + "; needs a restart: " + keys)
	default:
		n.Log.Info("the configuration is read again")
		n.Ready(status(a))
	}
}
