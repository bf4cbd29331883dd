// Demo runs a whole estate on one machine: an MQTT broker, the community
// server, two gates with emulated readers and thermometers on the far side of
// pseudo terminals, a third post without any hardware, and two thousand people
// who come and go. The gates are built by the same code as "gatehouse run".
//
//	go run ./cmd/demo --for 30s
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
	_ "time/tzdata" // a small system may have no zones of its own

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"gatehouse/device/sim"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		if !errors.Is(err, errLost) {
			fmt.Fprintln(os.Stderr, "demo:", err)
		}
		os.Exit(1)
	}
}

// errLost is that the server lacks entries, or has some twice: the summary says
// which.
var errLost = errors.New("entries are missing or duplicated")

// settings are the demo's flags.
type settings struct {
	length   time.Duration
	outage   time.Duration
	seed     uint64
	gates    int
	json     bool
	dir      string
	console  int
	secure   bool
	patience time.Duration
	open     time.Duration // a barrier waits for somebody to go through
	policy   string
	mortal   bool
	back     bool
	devices  []string
	verbose  bool

	readers, thermometers []string // of devices
}

func command() *cobra.Command {
	s := settings{open: 3 * time.Second}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "A whole estate on one machine",
		Long: `Starts a broker, the community server and the gates of one estate on emulated
hardware, lets people come and go, takes the broker away for a while, kills one
gate, with --rollback replaces its disk by an older image, and ends with a summary. Status 1 when any entry is missing at the server or stored twice.`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if s.length < 5*time.Second {
				return fmt.Errorf("--for %v is too short: at least 5s", s.length)
			}
			if s.outage >= s.length {
				return fmt.Errorf("--outage %v must be shorter than --for %v", s.outage, s.length)
			}
			if s.patience < time.Second || s.patience > 10*time.Minute {
				return fmt.Errorf("--patience %v is not between a second and ten minutes", s.patience)
			}
			if s.back && (!s.mortal || s.length < 20*time.Second) {
				return errors.New("--rollback needs --kill, and --for 20s at least")
			}
			if s.gates < 1 || s.gates > 16 {
				return fmt.Errorf("--gates %d is not between 1 and 16", s.gates)
			}
			if err := s.chooseDevices(); err != nil {
				return err
			}
			fd := int(os.Stdout.Fd())
			scr := newScreen(os.Stdout, term.IsTerminal(fd))
			sum, err := runDemo(cmd.Context(), s, scr)
			scr.close()
			if err != nil {
				return err
			}
			sum.print(os.Stdout)
			if s.json {
				b, err := json.Marshal(sum)
				if err != nil {
					return err
				}
				fmt.Println(string(b))
			}
			if sum.Missing > 0 || sum.Duplicated > 0 || len(sum.Findings) > 0 {
				return errLost
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.DurationVar(&s.length, "for", time.Minute, "how long people come and go")
	f.DurationVar(&s.outage, "outage", 10*time.Second, "how long the broker is away in the middle; 0 = not at all")
	f.Uint64Var(&s.seed, "seed", 1, "of the estate and its people")
	f.IntVar(&s.gates, "gates", 2, "gates with readers and barriers, beside the side entrance")
	f.BoolVar(&s.json, "json", false, "print the summary as JSON too, as the last line")
	f.StringVar(&s.dir, "dir", "", "keep the data in this folder (default: a temporary one)")
	f.IntVar(&s.console, "console-port", 0, "port of the first gate's page, the others follow (default: any)")
	f.BoolVar(&s.secure, "tls", false, "the gates' pages over TLS, with certificates of their own, as at a real gate")
	f.DurationVar(&s.patience, "patience", 10*time.Second, "how long a lane waits for its guard, or for a guard's word that somebody went through")
	f.StringVar(&s.policy, "policy", "closed-estate.yaml", "the sample policy in force")
	f.BoolVar(&s.mortal, "kill", true, "a third gate, a process of its own, is killed and started again")
	f.BoolVar(&s.back, "rollback", false, "and its disk is replaced by an older image")
	f.StringSliceVar(&s.devices, "device", nil, "emulated readers and thermometers, lane by lane: "+strings.Join(slices.Concat(sim.Kinds[:], sim.ThermometerKinds[:]), ", ")+"; or all")
	f.BoolVarP(&s.verbose, "verbose", "v", false, "show the parts' own log")
	cmd.AddCommand(gateCommand())
	return cmd
}

// chooseDevices sorts --device into readers and thermometers.
func (s *settings) chooseDevices() error {
	if slices.Contains(s.devices, "all") {
		s.readers, s.thermometers = sim.Kinds[:], sim.ThermometerKinds[:]
		return nil
	}
	for _, d := range s.devices {
		switch {
		case slices.Contains(sim.Kinds[:], d):
			s.readers = append(s.readers, d)
		case slices.Contains(sim.ThermometerKinds[:], d):
			s.thermometers = append(s.thermometers, d)
		default:
			return fmt.Errorf("--device %s: there is an emulator of %v and %v", d, sim.Kinds, sim.ThermometerKinds)
		}
	}
	if len(s.readers) == 0 {
		s.readers = sim.Kinds[:1]
	}
	if len(s.thermometers) == 0 {
		s.thermometers = sim.ThermometerKinds[:1]
	}
	return nil
}
