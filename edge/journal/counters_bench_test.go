package journal

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gatehouse/edge"
	"gatehouse/edge/clock"
)

// BenchmarkCounters shows that reading a household's counter, and counting one
// more in a commit, take the same however long the journal is. The smallest
// journal is the floor; GATEHOUSE_BENCH_FULL=1 goes on to 10,000,000 entries.
func BenchmarkCounters(b *testing.B) {
	ctx := context.Background()
	sizes := []int{10_000, 100_000}
	if os.Getenv("GATEHOUSE_BENCH_FULL") != "" {
		sizes = append(sizes, 1_000_000, 10_000_000)
	}
	clk := clock.NewFake(epochStart, 480)
	j := open(b, filepath.Join(b.TempDir(), "journal.db"), options(b, clk))
	const households = 700
	grow := func(to int) {
		var wg sync.WaitGroup
		const writers = 256
		for w := range writers {
			wg.Go(func() {
				for i := int(j.Size()) + w; i < to; i += writers {
					clk.Advance(time.Millisecond)
					if _, err := j.Append(ctx, decision(clk, i%2000, edge.Admit, add(exits(i%households), 1)), nil); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	for _, size := range sizes {
		grow(size)
		n := 0
		b.Run(fmt.Sprintf("%d/read", size), func(b *testing.B) {
			quantiles(b, "read", func() {
				n++
				if _, err := j.Cells(ctx, []edge.Cell{exits(n % households)}); err != nil {
					b.Fatal(err)
				}
			})
		})
		b.Run(fmt.Sprintf("%d/count", size), func(b *testing.B) {
			quantiles(b, "count", func() {
				n++
				clk.Advance(time.Second)
				if _, err := j.Append(ctx, decision(clk, n%2000, edge.Admit, add(exits(n%households), 1)), nil); err != nil {
					b.Fatal(err)
				}
			})
		})
	}
}
