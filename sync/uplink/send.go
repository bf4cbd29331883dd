package uplink

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/mod/sumdb/note"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

// flight is a batch on its way.
type flight struct {
	first, end uint64
	root       [32]byte
	sent       time.Time
	again      bool // some of it had been sent before
}

// owed is the newest receipt that is not stored yet.
type owed struct {
	size  uint64
	head  []byte
	since time.Time // the oldest of those that it covers came
}

// sender is the state of the loop that sends; nobody else touches it.
type sender struct {
	*Uplink
	epoch    edge.Epoch
	next     uint64 // the first entry to be sent
	flights  []flight
	since    time.Time // when next was first seen to be there; zero = it is not
	owed     owed
	timeout  time.Duration
	trip     time.Duration // from a batch to its receipt, the last time that this was certain
	furthest uint64        // up to here entries were sent, confirmed or not
	pause    time.Time     // nothing is sent before
	size     uint64        // of the journal when it was last looked at
	grew     time.Time     // when it was last seen to have grown: lanes are at work
	rest     time.Time     // no batch of the backlog is made before
	meter    meter
	plain    []byte    // the batch before it is packed, kept for the next one
	ahead    uint64    // up to here, entries went ahead of the backlog
	aheadAt  time.Time // the last time
	back     struct {  // the last time it went back for a gap
		to uint64
		at time.Time
	}
	hole *lost // nil = nothing is missed
	ask  *ask  // nil = it has not parted from the server's, as far as is known
}

func (u *Uplink) send(ctx context.Context) error {
	s := &sender{Uplink: u, meter: meter{Metered: u.cfg.Metered}}
	s.restart()
	defer func() { s.settle(context.WithoutCancel(ctx)) }()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wake, size := s.fill(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if s.owed.head != nil {
			wake = earlier(wake, s.owed.since.Add(settleEvery))
		}
		timer.Reset(max(0, time.Until(wake)))
		grown, done := s.growth(ctx, size)
		select {
		case <-ctx.Done():
		case <-grown:
		case <-timer.C:
			s.expire()
		case <-u.connected:
			// What was on its way may be lost. A pause was about the old connection.
			s.goBack()
			s.timeout, s.pause = s.patience(), time.Time{}
			if s.ask != nil {
				s.ask.end = 0
			}
		case payload := <-u.receipts:
			s.receipt(ctx, payload)
		}
		done()
		if s.owed.head != nil && time.Since(s.owed.since) >= settleEvery {
			s.settle(ctx)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// restart begins at the acknowledged mark of the journal's present epoch.
func (s *sender) restart() {
	s.epoch, s.next = s.j.Epoch(), s.j.Acked()
	s.flights, s.since, s.pause, s.owed = nil, time.Time{}, time.Time{}, owed{}
	s.ahead, s.furthest, s.size = 0, 0, s.j.Size()
	s.timeout = s.patience()
	s.hole, s.ask = nil, nil
}

// goBack takes what is on its way as lost.
func (s *sender) goBack() {
	if len(s.flights) > 0 {
		s.next = s.flights[0].first
		s.flights = nil
	}
}

// never is a size that no journal reaches.
const never = math.MaxUint64

// fill sends what is due. It returns when to look again at the latest, and the size
// of the journal beyond which to look at once.
func (s *sender) fill(ctx context.Context) (wake time.Time, grown uint64) {
	for ctx.Err() == nil {
		now := time.Now()
		wake = now.Add(time.Hour)
		if len(s.flights) > 0 {
			wake = earlier(wake, s.flights[0].sent.Add(s.timeout))
		}
		if s.epoch != s.j.Epoch() {
			s.restart()
			continue
		}
		size := s.j.Size()
		if s.ask != nil {
			return s.asking(ctx, now), never
		}
		if size != s.size {
			s.size, s.grew = size, now
		}
		if s.next >= size {
			s.since = time.Time{}
			return wake, s.next
		}
		if s.since.IsZero() {
			s.since = now
		}
		if !s.t.Connected() {
			return wake, never // the connection wakes the loop
		}
		free := later(s.meter.free(now), later(s.pause, s.rest))
		grown = never
		if s.behind(size) {
			// What happens now does not wait for what happened weeks ago.
			due := earlier(now.Add(time.Hour), later(s.aheadAt.Add(aheadEvery), free))
			switch {
			case s.ahead >= size:
				grown = size
			case due.After(now):
				wake = earlier(wake, due)
			default:
				s.aheadAt = now
				if err := s.sendAhead(ctx, now, size); err != nil && ctx.Err() == nil {
					s.note(err)
				}
				continue
			}
		}
		if len(s.flights) >= s.cfg.Window {
			return wake, grown // a receipt wakes the loop
		}
		if free.After(now) {
			return earlier(wake, free), grown
		}
		if due := s.since.Add(s.cfg.Age); due.After(now) && size-s.next < uint64(s.cfg.Entries) {
			return earlier(wake, due), s.next + uint64(s.cfg.Entries) - 1
		}
		if err := s.one(ctx, now); err != nil {
			if ctx.Err() == nil {
				s.note(err)
			}
			if errors.Is(err, errHole) {
				s.atHole()
			}
			s.pause = now.Add(s.cfg.Resend)
			return earlier(wake, s.pause), never
		}
	}
	return wake, never
}

// behind reports whether so much waits that a new entry would not go soon.
func (s *sender) behind(size uint64) bool {
	return size-s.next > uint64(s.cfg.Entries*s.cfg.Window)
}

// sendAhead sends the newest entries ahead of their turn, with what proves that
// they are in the journal. They go once, unconfirmed: they come again.
func (s *sender) sendAhead(ctx context.Context, now time.Time, size uint64) error {
	first := max(s.ahead, size-min(size, aheadMost))
	s.ahead = size
	var payload []byte
	for {
		entries, runs, err := s.gather(ctx, first, int(size-first))
		if err != nil {
			return err
		}
		edges, err := s.j.Edges(ctx, first)
		if err != nil {
			return err
		}
		payload, _, err = s.encode(ctx, entries, runs, edges)
		if err != nil {
			return err
		}
		if len(payload) <= s.cfg.Bytes || size-first == 1 {
			break
		}
		first += (size - first) / 2 // the newest of them
	}
	if err := s.publish(ctx, wire.Journal, payload, false); err != nil {
		return fmt.Errorf("cannot send ahead: %w", err)
	}
	s.meter.spent(now, len(payload))
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// one sends the next batch.
func (s *sender) one(ctx context.Context, now time.Time) error {
	payload, f, err := s.batch(ctx, s.next)
	if err != nil {
		return err
	}
	if s.lively() {
		made := time.Now()
		s.rest = made.Add(restFactor * made.Sub(now))
	}
	if err := s.publish(ctx, wire.Journal, payload, false); err != nil {
		return fmt.Errorf("cannot send: %w", err)
	}
	s.meter.spent(now, len(payload))
	f.sent, f.again = now, f.first < s.furthest
	s.furthest = max(s.furthest, f.end)
	s.flights = append(s.flights, f)
	s.next = f.end
	s.since = time.Time{}
	return nil
}

// While lanes are at work, a backlog is read in pieces, with a pause after each, and a
// batch is followed by a longer one: it has waited for hours, and people wait at the
// lanes. Their flushes are finished by threads of the kernel, which for some
// milliseconds wait for a processor that is busy.
const (
	livelyFor  = 2 * time.Second
	restFactor = 15
	piece      = 64 // entries
	breath     = time.Millisecond
)

func (s *sender) lively() bool { return s.behind(s.size) && time.Since(s.grew) < livelyFor }

// read reads at most n entries from first on, as Journal.Read does.
func (s *sender) read(ctx context.Context, first uint64, n int) ([]edge.Stored, error) {
	if !s.lively() {
		return s.j.Read(ctx, first, n, wire.MaxBatch/2)
	}
	var out []edge.Stored
	for total := 0; len(out) < n && total < wire.MaxBatch/2; {
		next := first + uint64(len(out))
		more, err := s.j.Read(ctx, next, min(n-len(out), piece), wire.MaxBatch/2-total)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
		if len(more) == 0 || more[len(more)-1].Seq != next+uint64(len(more))-1 {
			break // a hole, or the end
		}
		for _, e := range more {
			total += len(e.Line)
		}
		if err := sleep(ctx, breath); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// errHole: entries that the server lacks are gone from the journal.
var errHole = errors.New("entries that the server does not have are not in the journal any more")

// batch makes the batch that begins with entry first.
func (s *sender) batch(ctx context.Context, first uint64) ([]byte, flight, error) {
	n := s.cfg.Entries
	if end := (first + uint64(n)) &^ (edge.BlockSize - 1); end > first && s.j.Size() > end {
		n = int(end - first) // full blocks: no key is sent twice
	}
	for {
		entries, runs, err := s.gather(ctx, first, n)
		if err != nil {
			return nil, flight{}, err
		}
		payload, f, err := s.encode(ctx, entries, runs, nil)
		if err != nil {
			return nil, flight{}, err
		}
		if len(payload) <= s.cfg.Bytes || len(entries) == 1 {
			return payload, f, nil
		}
		n = max(1, len(entries)*s.cfg.Bytes/len(payload)*9/10)
	}
}

// gather reads at most n entries from first on, with the sealed runs among them,
// whose entries have no line.
func (s *sender) gather(ctx context.Context, first uint64, n int) ([]edge.Stored, []wire.HeaderSealed, error) {
	entries, err := s.read(ctx, first, n)
	if err != nil {
		return nil, nil, err
	}
	if whole := len(entries) > 0 && entries[0].Seq == first && entries[len(entries)-1].Seq == first+uint64(len(entries))-1; whole {
		return entries, nil, nil
	}
	var out []edge.Stored
	var runs []wire.HeaderSealed
	for size := s.j.Size(); len(out) < n && first+uint64(len(out)) < size; {
		seq := first + uint64(len(out))
		if len(entries) > 0 && entries[0].Seq == seq {
			out, entries = append(out, entries[0]), entries[1:]
			continue
		}
		run, err := s.j.Sealed(ctx, seq)
		if errors.Is(err, edge.ErrUnknown) {
			if len(out) > 0 {
				break // as far as was read, or up to a hole
			}
			return nil, nil, fmt.Errorf("entry %d: %w", seq, errHole)
		}
		if err != nil {
			return nil, nil, err
		}
		x := wire.SealedHeader(run)
		runs = append(runs, x)
		for ; seq < x.End() && len(out) < n; seq++ {
			out = append(out, edge.Stored{Seq: seq})
		}
	}
	if len(out) == 0 {
		return nil, nil, fmt.Errorf("from %d on: %w", first, errHole)
	}
	return out, runs, nil
}

func (s *sender) encode(ctx context.Context, entries []edge.Stored, runs []wire.HeaderSealed, edges [][32]byte) ([]byte, flight, error) {
	f := flight{first: entries[0].Seq, end: entries[0].Seq + uint64(len(entries))}
	b := wire.Batch{Header: wire.Header{Site: s.cfg.Site, Gate: s.cfg.Gate, Epoch: s.epoch, First: f.first, Sealed: runs, Ask: s.ask != nil}}
	for i := range edges {
		b.Edges = append(b.Edges, edges[i][:])
	}
	keys, err := s.j.BlockKeys(ctx, f.first, f.end-f.first)
	if err != nil {
		return nil, f, err
	}
	for block := f.first &^ (edge.BlockSize - 1); block < f.end; block += edge.BlockSize {
		k := wire.HeaderKey{First: block}
		for i := range keys {
			if keys[i].First == block {
				k.Key = keys[i].Key[:]
			}
		}
		b.Keys = append(b.Keys, k)
	}
	for i, e := range entries {
		if e.Seq != f.first+uint64(i) {
			return nil, f, fmt.Errorf("entry %d: %w", f.first+uint64(i), errHole)
		}
		if e.Blind != nil {
			b.Blinds = append(b.Blinds, wire.HeaderBlind{Seq: e.Seq, Blind: e.Blind[:]})
		}
		b.Lines = append(b.Lines, e.Line)
	}
	head, err := s.j.HeadAt(ctx, f.end)
	if err != nil {
		return nil, f, err
	}
	if head.Note == nil {
		return nil, f, errors.New("the journal does not sign its tree heads")
	}
	f.root, b.Head = head.Root, string(head.Note)
	s.plain, err = b.Encode(s.plain[:0])
	if err != nil {
		return nil, f, err
	}
	return s.zip.Pack(nil, s.plain), f, nil
}

// patience is how long a receipt may take: a slow link is not made to carry twice
// what it brings.
func (s *sender) patience() time.Duration {
	return min(max(s.cfg.Resend, 2*s.trip), maxTimeout)
}

// expire goes back when the oldest batch has had no receipt in time.
func (s *sender) expire() {
	if len(s.flights) == 0 || time.Since(s.flights[0].sent) < s.timeout {
		return
	}
	s.note(fmt.Errorf("no receipt within %v", s.timeout))
	s.goBack()
	s.timeout = min(2*s.timeout, maxTimeout)
}

// receipt handles what the server says. Only what it signed counts.
func (s *sender) receipt(ctx context.Context, payload []byte) {
	r, err := wire.DecodeReceipt(payload)
	if err != nil {
		s.note(err)
		return
	}
	if r.Epoch != s.epoch {
		return // of a former life of the journal
	}
	if r.Refusal != nil {
		s.refused(ctx, r)
		return
	}
	origin := edge.Origin(s.cfg.Community, s.cfg.Site, s.cfg.Gate, s.epoch)
	h, err := wire.OpenReceipt(r, origin, s.device, s.verifiers()...)
	if err != nil {
		s.note(fmt.Errorf("receipt not accepted: %w", err))
		return
	}
	if h.Size > s.j.Size() {
		s.parted(ctx, fmt.Errorf("the server has %d entries of this journal, which has %d: an old copy of the medium was restored", h.Size, s.j.Size()))
		return
	}
	own, err := s.rootAt(ctx, h.Size)
	if err != nil {
		s.note(err)
		return
	}
	if own != h.Root {
		s.parted(ctx, fmt.Errorf("the server has other entries below %d than this journal: two copies of one medium are in use", h.Size))
		return
	}
	s.ask = nil // what it has is what is here
	if h.Size >= s.j.Acked() {
		s.hole = nil
	}
	for len(s.flights) > 0 && s.flights[0].end <= h.Size {
		// Which of two sendings was receipted nobody knows: such a batch measures
		// nothing, and the longer patience stays (Karn's rule, RFC 6298 section 3).
		if f := s.flights[0]; !f.again {
			s.trip = time.Since(f.sent)
			s.timeout = s.patience()
		}
		s.flights = s.flights[1:]
	}
	if h.Size > max(s.owed.size, s.j.Acked()) {
		if s.owed.since.IsZero() {
			s.owed.since = time.Now()
		}
		s.owed.size, s.owed.head = h.Size, []byte(r.Head)
	}
	if len(s.flights) == 0 || time.Since(s.owed.since) >= settleEvery {
		s.settle(ctx)
	}
	s.next = max(s.next, h.Size)
	s.mu.Lock()
	s.state.LastReceipt, s.state.Error = time.Now(), ""
	s.mu.Unlock()
}

// settleEvery is how long receipts wait to be stored together while more are
// expected. Each store is a commit that a lane may have to wait for; what a crash
// forgets of them is sent and receipted again.
const settleEvery = 200 * time.Millisecond

// settle stores the newest receipt.
func (s *sender) settle(ctx context.Context) {
	if s.owed.head == nil {
		return
	}
	if err := s.j.Acknowledge(ctx, s.epoch, s.owed.size, s.owed.head); err != nil {
		s.note(fmt.Errorf("cannot store the receipt: %w", err))
		s.owed.since = time.Now() // tried again after a while
		return
	}
	s.owed = owed{}
}

// verifiers are for the cosignatures of the server's keys.
func (s *sender) verifiers() []note.Verifier {
	var out []note.Verifier
	for _, k := range s.receiptKeys() {
		if v, err := wire.CosignatureVerifier(k.ID, k.Public); err == nil {
			out = append(out, v)
		}
	}
	return out
}

func (s *sender) receiptKeys() []wire.ServerKey {
	var out []wire.ServerKey
	for _, k := range s.cfg.Trust() {
		for _, use := range k.Uses {
			if use == wire.UseReceipts && len(k.Public) == ed25519.PublicKeySize {
				out = append(out, k)
			}
		}
	}
	return out
}

// rootAt is this journal's own root over size entries.
func (s *sender) rootAt(ctx context.Context, size uint64) ([32]byte, error) {
	for _, f := range s.flights {
		if f.end == size {
			return f.root, nil
		}
	}
	h, err := s.j.HeadAt(ctx, size)
	return h.Root, err
}

func (s *sender) refused(ctx context.Context, r *wire.Receipt) {
	signed := false
	for _, k := range s.receiptKeys() {
		signed = signed || r.VerifyRefusal(s.cfg.Site, s.cfg.Gate, k.Public) == nil
	}
	if !signed {
		s.note(errors.New("a refusal that is not signed by the server was ignored"))
		return
	}
	s.settle(ctx)
	switch r.Refusal.Code {
	case wire.RefusedGap:
		s.gap(ctx, r)
	case wire.RefusedFork, wire.RefusedEpoch, wire.RefusedStands:
		s.answered(ctx, r)
	default:
		s.note(fmt.Errorf("the server refuses the journal (%s): %s", r.Refusal.Code, r.Refusal.Text))
		s.goBack()
		s.pause = time.Now().Add(refusedWait)
	}
}

// gap goes back to what the server has. All batches that followed the lost one are
// refused too; the first refusal is enough.
func (s *sender) gap(ctx context.Context, r *wire.Receipt) {
	switch {
	case s.ask != nil || r.Size > s.j.Size():
		s.parted(ctx, fmt.Errorf("the server has %d entries of this journal, which has %d", r.Size, s.j.Size()))
		return
	case r.Size == s.back.to && time.Since(s.back.at) < s.cfg.Resend && len(s.flights) > 0 && s.flights[0].first <= r.Size:
		return
	case r.Size < s.j.Acked() && s.gone(ctx, r):
		return
	case r.Size < s.j.Acked():
		s.log.Error("the server has lost entries that it had receipted; they are sent again", "acked", s.j.Acked(), "server", r.Size)
	}
	s.flights = nil
	s.next = r.Size
	s.back.to, s.back.at = r.Size, time.Now()
}

// lost is where the server wants receipted entries again that are not here any more.
type lost struct {
	at    uint64
	since int64 // the server's time when it first said so after they were missed; 0 = not yet
}

// lostWait is how long the server must go on saying that it has lost receipted
// entries, by its own clock and without a receipt that says otherwise, before what
// is not here either is given up: a refusal may come late, and come twice.
const lostWait = 5 * time.Minute

// atHole goes on from the acknowledged mark, to hear whether the server still lacks
// what is not here.
func (s *sender) atHole() {
	acked := s.j.Acked()
	if s.next >= acked || len(s.flights) > 0 {
		return
	}
	if s.hole == nil || s.hole.at != s.next {
		s.hole = &lost{at: s.next}
	}
	s.next = acked
}

// gone handles a refusal that wants entries which are not here. When the server has
// said so for long enough, a new epoch carries what comes after them, and counts
// them as lost.
func (s *sender) gone(ctx context.Context, r *wire.Receipt) bool {
	if s.hole == nil || r.Size != s.hole.at {
		return false
	}
	if s.hole.since == 0 {
		s.hole.since = max(1, r.Refusal.At)
	}
	if r.Refusal.At-s.hole.since >= lostWait.Milliseconds() {
		s.fork(ctx, s.hole.at, fmt.Errorf("the server has lost entries from %d on that it had receipted up to %d, and not all of them are here any more", s.hole.at, s.j.Acked()))
		return true
	}
	s.flights, s.next = nil, s.j.Acked()
	s.pause = time.Now().Add(s.cfg.Resend)
	return true
}

// ask is the question how much of this journal stands at the server, which has more,
// or other entries. The batch that asks is answered by a refusal.
type ask struct {
	first uint64 // so much does, for certain
	end   uint64 // of the batch that asks; 0 = it has not gone
	sent  time.Time
	said  int // what else the server has said meanwhile
	why   error
}

// askedAtMost is how often a server may say other things than an answer: more than
// were on their way. It then does not know the question.
const askedAtMost = 20

// parted asks where the server's copy begins to differ. Everything that it has
// receipted stands.
func (s *sender) parted(ctx context.Context, why error) {
	if s.ask != nil {
		if s.ask.said++; s.ask.said > askedAtMost {
			s.fork(ctx, s.ask.first, s.ask.why)
		}
		return
	}
	s.settle(ctx)
	s.log.Error("the journal and the server's copy have parted", "epoch", s.epoch, "err", why)
	s.note(why)
	s.timeout = s.patience()
	s.flights, s.ask = nil, &ask{first: s.j.Acked(), why: why}
	if s.ask.first >= s.j.Size() {
		s.fork(ctx, s.ask.first, why) // all of it is receipted
	}
}

// asking sends the batch that asks, and again when there is no answer. It returns
// when to look again.
func (s *sender) asking(ctx context.Context, now time.Time) (wake time.Time) {
	if due := s.ask.sent.Add(s.timeout); s.ask.end != 0 && due.After(now) {
		return due
	}
	if free := later(s.meter.free(now), later(s.pause, s.rest)); free.After(now) {
		return free
	}
	if !s.t.Connected() {
		return now.Add(time.Hour) // the connection wakes the loop
	}
	payload, f, err := s.batch(ctx, s.ask.first)
	if errors.Is(err, errHole) {
		s.fork(ctx, s.ask.first, errors.Join(s.ask.why, err))
		return now
	}
	if err == nil {
		err = s.publish(ctx, wire.Journal, payload, false)
	}
	if err != nil {
		s.note(fmt.Errorf("cannot ask how much the server has: %w", err))
		s.pause = now.Add(s.cfg.Resend)
		return s.pause
	}
	s.meter.spent(now, len(payload))
	if s.ask.end != 0 {
		s.timeout = min(2*s.timeout, maxTimeout) // nobody has answered
	}
	s.ask.end, s.ask.sent = f.end, now
	return now.Add(s.timeout)
}

// answered handles a refusal that says how much of a batch stands. It is believed as
// far as this journal has the same tree: the batches before that one may have been
// compared or not.
func (s *sender) answered(ctx context.Context, r *wire.Receipt) {
	why := fmt.Errorf("the server refuses this epoch: %s", r.Refusal.Text)
	h, ok, err := wire.OpenStands(r.Refusal, edge.Origin(s.cfg.Community, s.cfg.Site, s.cfg.Gate, s.epoch), s.verifiers()...)
	if err != nil {
		s.note(fmt.Errorf("refusal not accepted: %w", err))
		return
	}
	if !ok { // a server that does not say
		s.settle(ctx)
		s.fork(ctx, s.j.Acked(), why)
		return
	}
	same := false
	if h.Size <= s.j.Size() {
		own, err := s.rootAt(ctx, h.Size)
		if err != nil {
			s.note(err)
			return
		}
		same = own == h.Root
	}
	switch {
	case !same || s.ask == nil && r.Refusal.Code == wire.RefusedEpoch:
		s.parted(ctx, why)
	case r.Refusal.Code != wire.RefusedStands || h.Size == s.j.Size():
		s.settle(ctx)
		s.fork(ctx, h.Size, why)
	case s.ask == nil:
		s.parted(ctx, why)
	case h.Size > s.ask.first:
		s.ask.first, s.ask.end = h.Size, 0
		s.timeout = s.patience()
	}
}

// fork asks for a new epoch, which carries what comes after the first entries, that
// stand.
func (s *sender) fork(ctx context.Context, stand uint64, why error) {
	s.log.Error("a new epoch is needed", "epoch", s.epoch, "stand", stand, "err", why)
	err := errors.New("nobody can start a new epoch here")
	if s.cfg.Fork != nil {
		err = s.cfg.Fork(ctx, stand, why.Error())
	}
	if err == nil && s.j.Epoch() == s.epoch {
		err = errors.New("the epoch is still the old one")
	}
	if err != nil {
		s.note(errors.Join(why, err))
		s.goBack()
		s.ask = nil
		s.pause = time.Now().Add(refusedWait)
		return
	}
	s.restart()
	signal(s.repeat) // the new journal is looked through too
	s.Say()
}
