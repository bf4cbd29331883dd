package text

import (
	"testing"
	"time"
)

func TestDatesAndNumbers(t *testing.T) {
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 28, 14, 5, 9, 0, time.FixedZone("CST", 8*3600))
	for lang, want := range map[string][]string{
		"zh-Hans": {"2026年11月28日", "2026年11月28日 14:05", "2026年11月28日 14:05:09", "14:05", "14:05:09", "14:05", "11月28日 14:05", "2026年11月28日 14:05", "11月28日 14:05:09", "刚才", "1 分钟前", "36 小时前", "3 天前", "1,234.6", "2.5", "36.8 ℃"},
		"en":      {"28 Nov 2026", "28 Nov 2026, 14:05", "28 Nov 2026, 14:05:09", "14:05", "14:05:09", "14:05", "28 Nov, 14:05", "28 Nov 2026, 14:05", "28 Nov, 14:05:09", "just now", "1 minute ago", "36 hours ago", "3 days ago", "1,234.6", "2.5", "36.8 °C"},
	} {
		p := c.For(lang)
		got := []string{p.Day(at), p.Moment(at), p.Instant(at), p.Clock(at), p.Seconds(at),
			// The same day by the reader's wall, though not by Greenwich's.
			p.Lately(at, at.Add(9*time.Hour).UTC()), p.Lately(at, at.Add(24*time.Hour)), p.Lately(at, at.AddDate(1, 0, 0)), p.LatelySeconds(at, at.Add(10*time.Hour)),
			p.Ago(59 * time.Second), p.Ago(time.Minute), p.Ago(36 * time.Hour), p.Ago(72 * time.Hour),
			p.Number(1234.56, 1), p.Hours(150 * time.Minute), p.Celsius(p.Number(36.8, 1))}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%s, %d: %q, want %q", lang, i, got[i], want[i])
			}
		}
	}
}
