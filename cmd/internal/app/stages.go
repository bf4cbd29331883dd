package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// stage is one long-lived part. Stages start in the order of a list and stop in
// the reverse: what a stage needs has started before it and stops after it.
type stage struct {
	name  string
	run   func(context.Context) error // blocks until its context is done
	close func() error                // after run has returned; may be nil
}

// errEnded is a part that returned although nobody had asked it to.
var errEnded = errors.New("ended by itself")

// runStages starts every stage and blocks until ctx is done or one fails, then
// stops all in reverse. ready is called once all are started. A stage that has
// not stopped after patience is named and left behind, so that one stuck part
// does not keep the journal from being closed in order.
func runStages(ctx context.Context, log *slog.Logger, stages []stage, patience time.Duration, ready func()) error {
	type running struct {
		stage
		cancel context.CancelFunc
		done   chan error
	}
	failed := make(chan error, len(stages))
	var up []*running
	for _, s := range stages {
		// Not derived from ctx: its end must reach the stages one after the other.
		sctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		r := &running{stage: s, cancel: cancel, done: make(chan error, 1)}
		up = append(up, r)
		go func() {
			err := r.run(sctx)
			switch {
			case sctx.Err() != nil:
				if errors.Is(err, context.Canceled) {
					err = nil
				}
			case err == nil:
				err = errEnded
			}
			if err != nil {
				err = fmt.Errorf("%s: %w", r.name, err)
				if sctx.Err() == nil {
					failed <- err
				}
			}
			r.done <- err
		}()
	}
	ready()
	var errs []error
	select {
	case <-ctx.Done():
	case err := <-failed:
		errs = append(errs, err)
	}
	for i := len(up) - 1; i >= 0; i-- {
		r := up[i]
		r.cancel()
		timer := time.NewTimer(patience)
		select {
		case err := <-r.done:
			if err != nil && (len(errs) == 0 || err.Error() != errs[0].Error()) {
				errs = append(errs, err)
			}
		case <-timer.C:
			errs = append(errs, fmt.Errorf("%s: did not stop within %v", r.name, patience))
		}
		timer.Stop()
		if r.close != nil {
			if err := r.close(); err != nil {
				errs = append(errs, fmt.Errorf("cannot close %s: %w", r.name, err))
			}
		}
		log.Debug("stopped", "part", r.name)
	}
	return errors.Join(errs...)
}
