package chain

import (
	"path/filepath"
	"testing"

	"gatehouse/edge/identity"
)

// BenchmarkDrain is the gate's part of the way: from a journal on disk to Mosquitto,
// with receipts back from an end that verifies and stores nothing.
func BenchmarkDrain(b *testing.B) {
	ctx := b.Context()
	dir := b.TempDir()
	gate, err := Identity(dir)
	if err != nil {
		b.Fatal(err)
	}
	server, err := identity.Open(filepath.Join(dir, "server"), Realm+"/server")
	if err != nil {
		b.Fatal(err)
	}
	addr, _ := mosquitto(b)
	for i := range b.N {
		b.StopTimer()
		j, err := Fill(ctx, filepath.Join(dir, "journal"+string(rune('a'+i%26))+".db"), gate, 200_000)
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		r, err := Drain(ctx, j, gate, server, "mqtt://"+addr)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(r.Entries)/r.Took.Seconds(), "entries/s")
		b.ReportMetric(r.Floor.Seconds()/r.Took.Seconds(), "of-floor")
		b.ReportMetric(float64(r.Bytes)/float64(r.Entries), "B/entry")
		if err := j.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
