package text

import (
	"time"

	"golang.org/x/text/language"
	"golang.org/x/text/message"
	"golang.org/x/text/number"
)

// golang.org/x/text has the numbers of a locale and not yet its dates: their
// layouts are messages, as package time writes them.

// Day is a date: 28 Nov 2026.
func (p *Printer) Day(t time.Time) string { return t.Format(p.T("layout.day")) }

// Moment is a date and a time of day, to the minute: 28 Nov 2026, 14:05.
func (p *Printer) Moment(t time.Time) string { return t.Format(p.T("layout.moment")) }

// Instant is a date and a time of day, to the second.
func (p *Printer) Instant(t time.Time) string { return t.Format(p.T("layout.instant")) }

// Clock is a time of day: 14:05.
func (p *Printer) Clock(t time.Time) string { return t.Format(p.T("layout.clock")) }

// Seconds is a time of day to the second: 14:05:09.
func (p *Printer) Seconds(t time.Time) string { return t.Format(p.T("layout.seconds")) }

// Lately is a time as somebody reads it at now: the time of day alone when it was
// today, without the year when it was in this one.
func (p *Printer) Lately(t, now time.Time) string { return p.lately(t, now, "clock", "moment") }

// LatelySeconds is Lately to the second.
func (p *Printer) LatelySeconds(t, now time.Time) string {
	return p.lately(t, now, "seconds", "instant")
}

func (p *Printer) lately(t, now time.Time, clock, full string) string {
	now = now.In(t.Location())
	switch {
	case t.Year() != now.Year():
		return t.Format(p.T("layout." + full))
	case t.YearDay() != now.YearDay():
		return t.Format(p.T("layout." + full + "_of_year"))
	}
	return t.Format(p.T("layout." + clock))
}

// Ago is how long ago something was, in the greatest unit that it fills.
func (p *Printer) Ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return p.T("ago.now")
	case d < time.Hour:
		return p.T("ago.minutes", "Count", int(d.Minutes()))
	case d < 48*time.Hour:
		return p.T("ago.hours", "Count", int(d.Hours()))
	}
	return p.T("ago.days", "Count", int(d.Hours()/24))
}

// Number is a number with so many decimals: 36.8, 1,204.
func (p *Printer) Number(v float64, decimals int) string {
	return message.NewPrinter(language.Make(p.lang)).Sprint(number.Decimal(v, number.Scale(decimals)))
}

// Hours is a duration in hours, to a tenth.
func (p *Printer) Hours(d time.Duration) string { return p.Number(d.Hours(), 1) }

// Celsius gives a temperature its unit. It is written already, with how sure it is.
func (p *Printer) Celsius(reading string) string { return p.T("unit.celsius", "Value", reading) }
