package app

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// Notifier tells the service manager how the daemon is (sd_notify(3)). It does
// nothing where there is no manager.
type Notifier struct {
	Log *slog.Logger
}

// Ready says that the daemon is up; status is for "systemctl status".
func (n Notifier) Ready(status string) { n.send(daemon.SdNotifyReady + "\nSTATUS=" + status) }

// Reloading says that the configuration is read again; Ready ends it.
func (n Notifier) Reloading() {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		n.Log.Warn("cannot read the monotonic clock", "err", err)
	}
	n.send(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, ts.Nano()/1000))
}

// Stopping says that the daemon is going down in order.
func (n Notifier) Stopping() { n.send(daemon.SdNotifyStopping) }

// Status says in a line how things are.
func (n Notifier) Status(status string) { n.send("STATUS=" + status) }

func (n Notifier) send(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		n.Log.Warn("cannot notify the service manager", "err", err)
	}
}

// Watchdog feeds the service manager's watchdog at a third of its time while
// alive returns nil, until ctx is done. What is stuck is logged and not fed: the
// manager then restarts the daemon.
func (n Notifier) Watchdog(ctx context.Context, alive func() error) error {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("cannot read the watchdog's time: %w", err)
	}
	if every == 0 {
		<-ctx.Done()
		return nil
	}
	t := time.NewTicker(every / 3)
	defer t.Stop()
	for {
		if err := alive(); err != nil {
			n.Log.Error("no progress; the watchdog is not fed", "err", err)
		} else {
			n.send(daemon.SdNotifyWatchdog)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}
