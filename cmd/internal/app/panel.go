package app

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"gatehouse/device"
	"gatehouse/edge"
)

// panelLane is the lane that a panel acts on.
type panelLane interface {
	View() edge.LaneView
	Do(context.Context, edge.Action) error
}

// panelActor stands in the journal for whoever pressed a button: a panel does
// not know its guard.
const panelActor = "guard:panel"

// pressLate is the age at which a press no longer counts.
const pressLate = 2 * time.Second

// runPanel carries a guard's presses to a lane. A button is named like the
// action it stands for: "admit", "deny", "remeasure", "aside", "call" ...;
// "admit.<reason>" is one of several answers, plain "admit" the only one.
//
// A press counts for the person who was the lane's case when the button was
// pressed, never for who has come since.
func runPanel(ctx context.Context, p device.Panel, l panelLane, log *slog.Logger) {
	for ctx.Err() == nil {
		press, err := p.Press(ctx)
		switch {
		case errors.Is(err, device.ErrClosed):
			return
		case err != nil:
			if ctx.Err() == nil {
				log.Warn("cannot read a panel", "err", err)
			}
			continue
		}
		a, err := panelAction(press, l.View())
		if err == nil {
			err = l.Do(ctx, a)
		}
		if err != nil {
			log.Info("a press was not followed", "button", press.Button, "err", err)
		}
	}
}

var (
	errPressLate    = errors.New("it was pressed before this person's turn")
	errPressNobody  = errors.New("nobody is at the lane")
	errPressAnswers = errors.New("several answers are open: name one (admit.<reason>), or use the screen")
)

// panelAction is what a press means in a lane's present state.
func panelAction(press device.Press, v edge.LaneView) (edge.Action, error) {
	kind, reason, named := strings.Cut(press.Button, ".")
	a := edge.Action{Kind: edge.ActionKind(kind), Lane: v.Lane, Actor: panelActor, Reason: edge.Reason(reason)}
	if time.Since(press.At) > pressLate {
		return a, errPressLate
	}
	switch a.Kind {
	case edge.ActCall, edge.ActOpen, edge.ActClose:
		return a, nil
	}
	c := v.Current
	if c == nil {
		return a, errPressNobody
	}
	if press.At.Before(c.Since) {
		return a, errPressLate
	}
	a.Presentation = c.ID
	if a.Kind == edge.ActAdmit && !named {
		if len(c.Answers) != 1 {
			return a, errPressAnswers
		}
		a.Reason = c.Answers[0].Reason
	}
	return a, nil
}
