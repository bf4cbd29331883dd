package edge

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew")

// stamp is a moment at which the goldens happened: 2026-03-02T10:00:00.123+08:00.
var stamp = Stamp{Time: 1772416800123, Offset: 480, Boot: "5f1c8a02", Mono: 86400123, Clock: ClockSynced}

// goldens holds one entry of every kind. Their bytes are the format: a change
// here is a change that every gate and every server would have to follow.
var goldens = []Entry{
	{Kind: KindEpoch, Of: -1, Actor: "system", Stamp: stamp, Data: raw(`{"epoch":"00c0ffee00c0ffee","parent":"0123456789abcdef","forked":1041}`)},
	{Kind: KindCarried, Of: -1, Actor: "system", Stamp: stamp, Data: raw(`{"epoch":"0123456789abcdef","seq":1041,"line":"{\"v\":1,\"kind\":\"start\",\"t\":1,\"off\":0,\"boot\":\"x\",\"mono\":1,\"clock\":\"unset\"}"}`)},
	{Kind: KindStart, Of: -1, Actor: "system", Stamp: stamp, Policy: "sha256:77b0a1c2d3e4f506", Registry: 12, Data: raw(`{"version":"1.0.0","interrupted":0}`)},
	{Kind: KindStop, Of: -1, Actor: "system", Stamp: stamp, Data: raw(`{"version":"1.0.0"}`)},
	{Kind: KindDecision, Lane: "east-out", Presentation: 1042, Of: -1, Stamp: stamp, Policy: "sha256:77b0a1c2d3e4f506", Engine: "1", Registry: 12, Outcome: Admit, Rule: "resident",
		Reason: "resident", Authority: "Community office: Notice 2026-03", Matched: []Match{{Rule: "resident", Outcome: Admit}, {Rule: "protect.home", Outcome: Refer, Layer: "city"}},
		Obligations: []string{"register"},
		Facts: &Facts{Pass: &PassFacts{ID: 1832, Category: "resident", Status: PassActive, Party: 1}, Household: &HouseholdFacts{ID: 441, Area: "main", Members: 3},
			Temperature: &TemperatureFacts{State: TempOK, Band: BandBelow, Profile: "skin/1"}, Lane: LaneFacts{Level: LevelEstate, Direction: Out, Area: "main"},
			Area: &AreaFacts{Tier: TierPrevention}, Position: &PositionFacts{At: "inside", Age: 125}, Counters: map[string]CounterFact{"household_exits": {N: 0, Peers: 0}}},
		Deltas: []Delta{{Cell: Cell{Name: "household_exits", Subject: "h441", Bucket: 10257}, Op: OpAdd, Value: 1}}},
	{Kind: KindDecision, Lane: "east-in", Presentation: 1043, Of: -1, Stamp: Stamp{Time: 1772416800123, Offset: 330, Boot: "5f1c8a02", Mono: 5, Clock: ClockHoldover, Error: 860}, Outcome: Refer,
		Rule: "pass.unknown", Reason: "pass.unknown", Card: "9f86d081884c7d65", Facts: &Facts{Lane: LaneFacts{Level: LevelEstate, Direction: In, Degraded: []string{"thermometer"}}, Temperature: &TemperatureFacts{State: TempFault}}},
	{Kind: KindPassage, Lane: "east-out", Presentation: 1042, Of: 5, Actor: "system", Stamp: stamp, Result: ResultPassed, Deltas: []Delta{{Cell: Cell{Name: CellPosition, Subject: "p1832"}, Op: OpSet, Value: PositionOutside}}},
	{Kind: KindAction, Lane: "east-in", Presentation: 1043, Of: 6, Actor: "guard:7", Stamp: stamp, Outcome: Admit, Rule: "pass.unknown", Reason: "registered", Data: raw(`{"action":"admit","identity":"document"}`)},
	{Kind: KindAbandoned, Lane: "east-out", Presentation: 1042, Of: 5, Actor: "system", Stamp: stamp, Deltas: []Delta{{Cell: Cell{Name: "household_exits", Subject: "h441", Bucket: 10257}, Op: OpAdd, Value: -1}}},
	{Kind: KindFire, Of: -1, Actor: "system", Stamp: stamp, Deltas: []Delta{{Cell: Cell{Name: CellReset, Subject: SubjectReset}, Op: OpSet, Value: 1772416800123}}, Data: raw(`{"by":"main","on":true}`)},
	{Kind: KindDevice, Lane: "east-in", Of: -1, Actor: "system", Stamp: stamp, Data: raw(`{"device":"east-in thermometer","driver":"gy-mcu90614","error":"cannot read: disconnected","state":"disconnected"}`)},
	{Kind: KindPolicy, Of: -1, Actor: "system", Stamp: stamp, Policy: "sha256:77b0a1c2d3e4f506", Data: raw(`{"policy":"closed-estate","hash":"sha256:77b0a1c2d3e4f506","version":2,"from":"server","before":"sha256:0011223344556677"}`)},
	{Kind: KindRegistry, Of: -1, Actor: "guard:7", Stamp: stamp, Registry: 13, Data: raw(`{"pass":1832,"status":"suspended","reason":"moved out","actor":"guard:7","at":1772416800123}`)},
	{Kind: KindClock, Of: -1, Actor: "system", Stamp: stamp, Data: raw(`{"leap_ms":-3600000}`)},
	{Kind: KindCommand, Of: -1, Actor: "server", Stamp: stamp, Data: raw(`{"number":17,"name":"reload","status":"done"}`)},
	{Kind: KindAlert, Lane: "east-in", Of: -1, Actor: "system", Stamp: stamp, Data: raw(`{"alert":"tamper","open":true}`)},
	{Kind: KindAccess, Of: -1, Actor: "guard:7", Stamp: stamp, Data: raw(`{"view":"pass","pass":1832}`)},
	{Kind: KindSession, Of: -1, Actor: "guard:7", Stamp: stamp, Data: raw(`{"event":"login"}`)},
	{Kind: KindAccount, Of: -1, Actor: "manager:1", Stamp: stamp, Data: raw(`{"action":"role","account":7,"role":"supervisor","before":"guard"}`)},
	{Kind: KindSnapshot, Of: -1, Actor: "system", Stamp: stamp, Deltas: []Delta{{Cell: Cell{Name: CellPosition, Subject: "p1832"}, Op: OpSet, Value: PositionInside}}},
	{Kind: KindPurge, Of: -1, Actor: "system", Stamp: stamp, Data: raw(`{"from":0,"to":512,"before":1771207200000}`)},
	{Kind: KindTest, Lane: "east-in", Of: -1, Actor: "installer:1", Stamp: stamp, Data: raw(`{"test":"lamp"}`)},
}

func raw(s string) json.RawMessage { return json.RawMessage(s) }

func TestGoldenEntries(t *testing.T) {
	seen := map[Kind]bool{}
	for _, e := range goldens {
		line, err := e.AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		name := string(e.Kind)
		if seen[e.Kind] {
			name += "-2"
		}
		seen[e.Kind] = true
		path := filepath.Join("testdata", "entries", name+".json")
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, append(line, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(line)+"\n" != string(want) {
			t.Errorf("%s:\n%s\nwant\n%s", name, line, want)
		}
		back, err := DecodeEntry(line)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		again, err := back.AppendJSON(nil)
		if err != nil || !bytes.Equal(line, again) {
			t.Errorf("%s does not survive reading and writing:\n%s\n%s (%v)", name, line, again, err)
		}

	}
	for _, k := range []Kind{KindEpoch, KindCarried, KindStart, KindStop, KindDecision, KindPassage, KindAction, KindAbandoned, KindFire, KindDevice, KindPolicy,
		KindRegistry, KindClock, KindCommand, KindAlert, KindAccess, KindSession, KindSnapshot, KindPurge, KindTest} {
		if !seen[k] {
			t.Errorf("no golden entry of kind %s", k)
		}
	}
}

// A reader keeps the kinds and fields that it does not know.
func TestUnknownIsKept(t *testing.T) {
	line := `{"v":2,"kind":"teleport","t":5,"off":0,"boot":"b","mono":1,"clock":"unset","aura":{"hue":"blue"},"zeta":[1,2]}`
	e, err := DecodeEntry([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	out, err := e.AppendJSON(nil)
	if err != nil || string(out) != line {
		t.Errorf("%s (%v)\nwant\n%s", out, err, line)
	}
}

// Made with openssl dgst -mac HMAC and sha256sum.
const (
	blindVector = "a913e0366a513a1456459ac6b182d7eb0af328a71d5ee95cfecf31aa57d0f518"
	leafVector  = "f3b442308d35d8ecc2bde50fab05b66fecab26b90bb0da49abb86685f0d7bc79"
)

func TestLeafOfTheFormat(t *testing.T) {
	var k BlockKey
	for i := range k {
		k[i] = 1
	}
	blind := k.Blind(7)
	leaf := LeafData(blind, []byte("{}"))
	if got := hex.EncodeToString(blind[:]); got != blindVector {
		t.Errorf("blind %s, want %s", got, blindVector)
	}
	if got := hex.EncodeToString(leaf[:]); got != leafVector {
		t.Errorf("leaf %s, want %s", got, leafVector)
	}
}

func TestEntriesSurvive(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		str := func(l string) string { return rapid.StringN(0, 12, 40).Draw(rt, l) }
		e := Entry{Version: 1, Kind: Kind("k" + str("kind")), Lane: str("lane"), Presentation: rapid.Uint64Range(0, 1<<53).Draw(rt, "p"), Of: rapid.Int64Range(-1, 1<<40).Draw(rt, "of"),
			Actor: str("actor"), Stamp: Stamp{Time: rapid.Int64().Draw(rt, "t"), Offset: rapid.IntRange(-840, 840).Draw(rt, "off"), Boot: str("boot"), Mono: rapid.Int64().Draw(rt, "mono"), Clock: ClockState(str("clock"))},
			Reason: Reason(str("reason")), Result: str("result")}
		if n := rapid.IntRange(0, 3).Draw(rt, "deltas"); n > 0 {
			for range n {
				e.Deltas = append(e.Deltas, Delta{Cell: Cell{Name: str("c"), Subject: str("s"), Bucket: rapid.Int64().Draw(rt, "b")}, Op: rapid.SampledFrom([]DeltaOp{OpAdd, OpSet}).Draw(rt, "op"), Value: rapid.Int64().Draw(rt, "v")})
			}
		}
		line, err := e.AppendJSON(nil)
		if err != nil {
			rt.Fatal(err)
		}
		if bytes.ContainsAny(line, "\n\r") || !json.Valid(line) {
			rt.Fatalf("not one line of JSON: %q", line)
		}
		back, err := DecodeEntry(line)
		if err != nil {
			rt.Fatal(err)
		}
		if d := cmp.Diff(e, *back); d != "" {
			rt.Fatal(d)
		}
	})
}

func FuzzDecodeEntry(f *testing.F) {
	for _, e := range goldens {
		line, err := e.AppendJSON(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := DecodeEntry(line)
		if err != nil {
			return
		}
		once, err := e.AppendJSON(nil)
		if err != nil {
			return
		}
		back, err := DecodeEntry(once)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, once)
		}
		twice, err := back.AppendJSON(nil)
		if err != nil || !bytes.Equal(once, twice) {
			t.Errorf("not stable:\n%s\n%s", once, twice)
		}
	})
}
