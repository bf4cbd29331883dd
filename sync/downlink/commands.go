package downlink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/durable"
	"gatehouse/sync/wire"
)

// Statuses of a command's result.
const (
	statusDone    = "done"
	statusFailed  = "failed"
	statusRefused = "refused"
	statusUnknown = "unknown" // the gate ended in between
)

const doMax = 30 * time.Second // for one command

// consumed is, for each server key, the last command taken: its number is on the
// medium before anything is done.
type consumed map[string]wire.Result

func (d *Downlink) consumedPath() string { return filepath.Join(d.cfg.Dir, "commands.json") }

func (d *Downlink) loadConsumed() (consumed, error) {
	c := consumed{}
	b, err := os.ReadFile(d.consumedPath())
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read which commands were carried out: %w", err)
	}
	return c, nil
}

// save returns when the numbers are on the medium.
func (c consumed) save(path string) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return durable.Replace(path, b, 0o600)
}

// obey carries commands out, one at a time.
func (d *Downlink) obey(ctx context.Context) error {
	done, err := d.loadConsumed()
	if err != nil {
		// Without the numbers a command could be carried out twice: none is.
		d.log.Error("no command is accepted", "err", err)
		<-ctx.Done()
		return ctx.Err()
	}
	for id, r := range done {
		if r.Status == "" {
			r.Status, r.Text = statusUnknown, "the gate stopped while it was carried out"
			done[id] = r
			d.report(ctx, done, r, "", "")
		}
	}
	var refused refusals
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.again:
			for _, r := range done {
				d.result(ctx, r)
			}
		case payload := <-d.commands:
			if err := d.command(ctx, done, payload); err != nil && ctx.Err() == nil {
				d.log.Warn("command refused", "err", err)
				if err := refused.record(ctx, d.cfg, edge.KindCommand, "command", err); err != nil {
					d.log.Error("downlink", "err", err)
				}
			}
		}
	}
}

// command checks a command and carries it out. Its error is why it was refused.
func (d *Downlink) command(ctx context.Context, done consumed, payload []byte) error {
	e, err := d.open(payload, wire.TypeCommand, wire.UseCommands)
	if err != nil {
		return err
	}
	var c wire.CommandBody
	if err := decode(e.Body, &c, &c.V); err != nil {
		return err
	}
	if c.Name == "" {
		return fmt.Errorf("%w: command without a name", wire.ErrMalformed)
	}
	last := done[e.KeyID]
	if c.Number == last.Number && c.Number != 0 {
		d.result(ctx, last) // came twice
		return nil
	}
	refuse := func(why string) error {
		d.result(ctx, wire.Result{V: wire.Version, Number: c.Number, KeyID: e.KeyID, Status: statusRefused, Text: why, At: d.now()})
		return fmt.Errorf("%s %d of %s: %s", c.Name, c.Number, e.KeyID, why)
	}
	cur, previous := d.cfg.Nonces()
	switch {
	case c.Number < last.Number:
		return refuse("its number was used before")
	case c.Nonce == "" || c.Nonce != cur && c.Nonce != previous:
		return refuse("its nonce is not one of this gate's present ones")
	case c.Expires != 0 && d.cfg.Clock.Now().Clock.Trusted() && d.now() > c.Expires:
		return refuse("it has expired")
	case d.cfg.Commands == nil:
		return refuse("this gate takes no commands")
	}
	r := wire.Result{V: wire.Version, Number: c.Number, KeyID: e.KeyID, At: d.now()}
	done[e.KeyID] = r
	if err := done.save(d.consumedPath()); err != nil {
		done[e.KeyID] = last
		return refuse("its number cannot be stored")
	}
	dctx, cancel := context.WithTimeout(ctx, doMax)
	text, err := d.cfg.Commands.Do(dctx, Command{Name: c.Name, Args: c.Args, Actor: c.Actor})
	cancel()
	r.Status, r.Text, r.At = statusDone, text, d.now()
	if err != nil {
		r.Status, r.Text = statusFailed, err.Error()
	}
	done[e.KeyID] = r
	d.report(ctx, done, r, c.Name, c.Actor)
	return nil
}

// report journals, keeps and says what became of a command.
func (d *Downlink) report(ctx context.Context, done consumed, r wire.Result, name, actor string) {
	ctx = context.WithoutCancel(ctx)
	_, err := d.cfg.Record(ctx, edge.KindCommand, map[string]any{"number": r.Number, "key": r.KeyID, "name": name, "by": actor, "status": r.Status, "text": r.Text})
	if err := errors.Join(err, done.save(d.consumedPath())); err != nil {
		d.log.Error("cannot record a command", "number", r.Number, "err", err)
	}
	d.result(ctx, r)
}

// result says what became of a command; the last ones are said again at each
// connection.
func (d *Downlink) result(ctx context.Context, r wire.Result) {
	payload, err := wire.Encode(r)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, publishWait)
		defer cancel()
		err = d.t.Publish(ctx, wire.Topic(d.cfg.Site, d.cfg.Gate, wire.Results), payload, false)
	}
	if err != nil {
		d.log.Info("the result of a command waits for a connection", "number", r.Number, "err", err)
	}
}

func (d *Downlink) now() int64 { return d.cfg.Clock.Now().Time }
