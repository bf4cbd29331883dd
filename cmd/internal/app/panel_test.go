package app

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/device"
	"gatehouse/device/panel"
	"gatehouse/device/sim"
	"gatehouse/edge"
)

type fakeLane struct {
	view edge.LaneView
	did  []edge.Action
}

func (l *fakeLane) View() edge.LaneView { return l.view }
func (l *fakeLane) Do(_ context.Context, a edge.Action) error {
	l.did = append(l.did, a)
	return nil
}

func TestPanelAction(t *testing.T) {
	now := time.Now()
	one := []edge.Answer{{Reason: "known"}}
	two := append([]edge.Answer{{Reason: "medical"}}, one...)
	for _, c := range []struct {
		name    string
		button  string
		at      time.Time
		current *edge.PresentationView
		want    edge.Action
		err     error
	}{
		{"admit", "admit", now, &edge.PresentationView{ID: 7, Answers: one, Since: now.Add(-time.Second)}, edge.Action{Kind: edge.ActAdmit, Presentation: 7, Reason: "known"}, nil},
		{"which?", "admit", now, &edge.PresentationView{ID: 7, Answers: two, Since: now.Add(-time.Second)}, edge.Action{}, errPressAnswers},
		{"this one", "admit.medical", now, &edge.PresentationView{ID: 7, Answers: two, Since: now.Add(-time.Second)}, edge.Action{Kind: edge.ActAdmit, Presentation: 7, Reason: "medical"}, nil},
		{"no answer is open", "admit", now, &edge.PresentationView{ID: 7, Since: now.Add(-time.Second)}, edge.Action{}, errPressAnswers},
		{"deny", "deny", now, &edge.PresentationView{ID: 7, Since: now.Add(-time.Second)}, edge.Action{Kind: edge.ActDeny, Presentation: 7}, nil},
		{"meant for the one before", "deny", now.Add(-time.Second), &edge.PresentationView{ID: 8, Since: now}, edge.Action{}, errPressLate},
		{"old", "call", now.Add(-3 * time.Second), nil, edge.Action{}, errPressLate},
		{"nobody", "deny", now, nil, edge.Action{}, errPressNobody},
		{"call", "call", now, nil, edge.Action{Kind: edge.ActCall}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := panelAction(device.Press{Button: c.button, At: c.at}, edge.LaneView{Lane: "in", Current: c.current})
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if c.want.Lane, c.want.Actor = "in", panelActor; err == nil && got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// From a button to the lane.
func TestRunPanel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deny := sim.NewContact("deny")
		p := panel.NewButtons("panel", map[string]device.Contact{"deny": deny})
		l := &fakeLane{view: edge.LaneView{Lane: "in", Current: &edge.PresentationView{ID: 3, Since: time.Now()}}}
		done := make(chan struct{})
		go func() {
			runPanel(t.Context(), p, l, slog.New(slog.DiscardHandler))
			close(done)
		}()
		time.Sleep(time.Second)
		deny.Set(true)
		time.Sleep(time.Second)
		deny.Break() // reported, and the panel goes on
		deny.Set(false)
		time.Sleep(time.Second)
		deny.Set(true)
		time.Sleep(time.Second)
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		<-done
		if len(l.did) != 2 || l.did[0].Kind != edge.ActDeny || l.did[0].Presentation != 3 {
			t.Errorf("%+v", l.did)
		}
	})
}
