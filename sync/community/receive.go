package community

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"strconv"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"gatehouse/edge"
	"gatehouse/sync/wire"
)

const (
	workers   = 2                      // that decode and hash
	groupSize = 4096                   // entries that one transaction takes at most, beyond its first batch
	patience  = 2 * time.Second        // a full queue holds the broker's connection up so long, then a batch is dropped
	dropSaid  = time.Minute            // between two lines about what was dropped
	keysFresh = 30 * time.Second       // remembered keys are read again after this
	keysRetry = time.Second            // and so soon when one is not among them
	pauseMin  = 100 * time.Millisecond // between attempts to commit while the store fails
	pauseMax  = time.Second
)

// prepared is a batch with everything done to it that needs no database.
type prepared struct {
	gateName
	err    error // the payload cannot be read
	batch  *wire.Batch
	gate   *gate     // nil: nobody knows it
	public [32]byte  // of the approved key that signed the head
	signer string    // "", or why no approved key did
	head   edge.Head // parsed; verified when signer is ""
	leaves []tlog.Hash
	cols   []columns
	pieces []piece
}

// take hands a payload to its worker. The callback of the transport may wait a
// little, which holds up the broker; not for long, since that connection also
// carries everything else.
func (s *Server) take(in incoming) {
	c := s.decode[maphash.Comparable(seed, in.gateName)%workers]
	select {
	case c <- in:
		return
	default:
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case c <- in:
	case <-t.C:
		s.dropped.Add(1)
	}
}

// dropLoop says that messages were dropped, in one line for all of a while: they are
// most when there is least time to write about them.
func (s *Server) dropLoop(ctx context.Context) error {
	t := time.NewTicker(dropSaid)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		if n := s.dropped.Swap(0); n > 0 {
			s.log.Warn("messages were dropped, more came than could be seen to: what has no answer comes again", "messages", n)
		}
	}
}

var seed = maphash.MakeSeed()

func (s *Server) decodeLoop(ctx context.Context, c <-chan incoming) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case in := <-c:
			p, err := s.prepare(ctx, in)
			if err != nil {
				s.log.Error("a batch was dropped", "site", in.site, "gate", in.gate, "error", err)
				continue
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case s.ready <- p:
			}
		}
	}
}

// prepare decodes, verifies the signature, hashes, finds the columns and packs
// the blocks. Its error is the store's; what is wrong with the batch is in the
// result.
func (s *Server) prepare(ctx context.Context, in incoming) (*prepared, error) {
	p := &prepared{gateName: in.gateName}
	var err error
	if p.gate, err = s.gate(ctx, in.gateName, keysFresh); err != nil {
		return nil, err
	}
	if p.batch, p.err = wire.DecodeBatch(in.payload); p.err != nil {
		return p, nil
	}
	b := p.batch
	if b.Site != in.site || b.Gate != in.gate {
		p.err = fmt.Errorf("%w: batch of %s/%s on the topic of %s/%s", wire.ErrMalformed, b.Site, b.Gate, in.site, in.gate)
		return p, nil
	}
	if p.signer = p.verify(s.cfg.Community); p.signer != "" {
		// The key may have been approved just now, by another process.
		if p.gate, err = s.gate(ctx, in.gateName, keysRetry); err != nil {
			return nil, err
		}
		if p.signer = p.verify(s.cfg.Community); p.signer != "" {
			return p, nil
		}
	}
	if p.head.Size != b.First+b.Count {
		p.err = fmt.Errorf("%w: batch of entries %d to %d with a head of size %d", wire.ErrMalformed, b.First, b.First+b.Count-1, p.head.Size)
		return p, nil
	}
	if len(b.Sealed) > 0 {
		if s.cfg.Open == nil {
			p.err = errors.New("entries are sealed to the community, and this server has not its key")
			return p, nil
		}
		if p.err = b.Unseal(s.cfg.Open); p.err != nil {
			return p, nil
		}
	}
	p.leaves = make([]tlog.Hash, len(b.Lines))
	p.cols = make([]columns, len(b.Lines))
	now := time.Now().UnixMilli()
	u := unwrapper{open: s.cfg.Open, now: now}
	blind := b.Blind
	for i, line := range b.Lines {
		seq := b.First + uint64(i)
		if len(b.Blinds) == 0 && (i == 0 || seq%edge.BlockSize == 0) {
			key := b.Key(seq)
			blind = key.Blinder()
		}
		data := edge.LeafData(blind(seq), line)
		p.leaves[i] = tlog.RecordHash(data[:])
		if scanColumns(line, &p.cols[i]) != nil {
			p.cols[i] = columns{of: -1}
		}
		u.unwrap(seq, &p.cols[i])
		p.cols[i].clean()
		p.cols[i].time = plausible(p.cols[i].time, now)
	}
	if u.err != nil {
		s.log.Warn("a sealed run that was carried over cannot be opened: who is in it is not known", "site", in.site, "gate", in.gate, "error", u.err)
	}
	p.pieces = p.cut(b.First)
	return p, nil
}

// Times outside of this, seen from now, are those of a gate without a clock.
const (
	longest = 400 * 24 * time.Hour // offline at most
	ahead   = 48 * time.Hour
)

// plausible is the time an entry is filed under: its own, or that of its receipt
// where its own cannot be true. The line keeps what the gate said.
func plausible(t, now int64) int64 {
	if t < now-longest.Milliseconds() || t > now+ahead.Milliseconds() {
		return now
	}
	return t
}

// verify finds the approved key that signed the head; it says why there is none.
func (p *prepared) verify(community string) string {
	b := p.batch
	if p.gate == nil {
		return "the gate is not registered"
	}
	var known []note.Verifier
	var keys []GateKey
	for _, k := range p.gate.keys {
		v, err := edge.HeadVerifier(k.Name, k.Public[:])
		if err != nil {
			continue
		}
		known, keys = append(known, v), append(keys, k)
	}
	h, n, err := edge.OpenHead([]byte(b.Head), known...)
	if err != nil {
		return "no registered key has signed the head: " + err.Error()
	}
	if want := edge.Origin(community, b.Site, b.Gate, b.Epoch); h.Origin != want {
		return fmt.Sprintf("the head is of %.200q, not of %q", h.Origin, want)
	}
	p.head = h
	state := KeyPending
	for _, sig := range n.Sigs {
		for i, v := range known {
			if v.Name() == sig.Name && v.KeyHash() == sig.Hash {
				if keys[i].State == KeyApproved {
					p.public = keys[i].Public
					return ""
				}
				state = keys[i].State
			}
		}
	}
	return "the key that signed the head is " + string(state)
}

// cut packs the lines from sequence from onwards into pieces of aligned blocks.
func (p *prepared) cut(from uint64) []piece {
	b := p.batch
	var out []piece
	var buf []byte
	for end := b.First + b.Count; from < end; {
		to := min(from&^(edge.BlockSize-1)+edge.BlockSize, end)
		key := b.Key(from)
		pc := piece{first: from, count: int(to - from), key: key[:], hashes: make([]byte, 0, (to-from)*tlog.HashSize)}
		if blinded(b, from, to) {
			pc.key = []byte{}
			for seq := from; seq < to; seq++ {
				x := b.Blind(seq)
				pc.blinds = append(pc.blinds, x[:]...)
			}
		}
		buf = buf[:0]
		for i := from - b.First; i < to-b.First; i++ {
			buf = append(append(buf, b.Lines[i]...), '\n')
			pc.hashes = append(pc.hashes, p.leaves[i][:]...)
			pc.until = max(pc.until, p.cols[i].time)
		}
		pc.data = pack(buf)
		out = append(out, pc)
		from = to
	}
	return out
}

// blinded says whether some of these entries came with blinds of their own: the
// key of their block was destroyed, or is to be.
func blinded(b *wire.Batch, from, to uint64) bool {
	for _, x := range b.Blinds {
		if x.Seq >= from && x.Seq < to {
			return true
		}
	}
	return b.Key(from) == edge.BlockKey{}
}

// commitLoop is the only writer of logs. It takes all batches that are waiting
// into one transaction, and lets receipts out only after its commit.
func (s *Server) commitLoop(ctx context.Context) error {
	c := committer{Server: s, logs: map[logName]*gateLog{}, newest: map[int64]int64{}}
	var err error
	if c.cosigner, err = s.cosignerLine(); err != nil {
		return err
	}
	if err := s.checkOwnKey(ctx); err != nil {
		s.log.Error("gates will not believe this server", "error", err)
	}
	pause := pauseMin
	for {
		var group []*prepared
		select {
		case <-ctx.Done():
			return ctx.Err()
		case p := <-s.ready:
			group = append(group, p)
		}
	more:
		for n := 0; n < groupSize; {
			select {
			case p := <-s.ready:
				group = append(group, p)
				n += len(p.leaves)
			default:
				break more
			}
		}
		var err error
		for again := true; len(group) > 0; {
			var n int
			n, err = c.commit(ctx, group)
			group = group[n:]
			if errors.Is(err, errMoved) && again {
				// A purge, or another process, was at this log: once more, with what is
				// stored now.
				clear(c.logs)
				again = false
				continue
			}
			if err != nil {
				break
			}
			again = true
		}
		if err != nil && len(group) > 1 && ctx.Err() == nil {
			// Was it one of them? Whatever a gate sends, the others must not wait for it.
			clear(c.logs)
			clear(c.newest)
			for failed := 0; len(group) > 0 && failed < 2; group = group[1:] {
				if _, e := c.commit(ctx, group[:1]); e != nil {
					s.log.Error("cannot store a batch", "site", group[0].site, "gate", group[0].gateName.gate, "error", e)
					clear(c.logs)
					clear(c.newest)
					failed++
					continue
				}
				failed, err = 0, nil
			}
		}
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			s.log.Error("cannot store batches; gates will send them again", "batches", len(group), "error", err)
			clear(c.logs)
			clear(c.newest)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(pause):
			}
			pause = min(2*pause, pauseMax)
			continue
		}
		pause = pauseMin
	}
}

type logName struct {
	gate  int64
	epoch edge.Epoch
}

// committer holds what only the commit loop may touch.
type committer struct {
	*Server
	logs   map[logName]*gateLog // as stored
	newest map[int64]int64      // of each gate, the id of the log that began last
	// cosigner begins the line of this server's cosignature in a receipt.
	cosigner []byte
}

// maxLogs bounds the logs that are remembered; each is about a kilobyte.
const maxLogs = 20_000

// alarm is an alert to be stored.
type alarm struct {
	gate              int64
	kind, about, text string
}

// commit decides on each batch of a group, stores what is new and then replies.
// It returns how many batches are done with: one that repeats what this very
// transaction stores ends the group, since it must be compared with it.
func (c *committer) commit(ctx context.Context, group []*prepared) (int, error) {
	if len(c.logs) > maxLogs {
		clear(c.logs)
	}
	now := time.Now()
	var adds []*addition
	var out []reply
	var alarms []alarm
	last := map[*gateLog]*gateLog{} // what a log becomes in this transaction
	fresh := map[logName]*gateLog{}
	repeated := uint64(0)
	done := 0
	for _, p := range group {
		v := verdict{now: now, last: last, fresh: fresh}
		err := c.decide(ctx, p, &v)
		if errors.Is(err, errLater) && done > 0 {
			break
		}
		if err != nil {
			return 0, err
		}
		done++
		repeated += v.repeated
		if v.add != nil {
			adds = append(adds, v.add)
			last[v.add.log] = &v.add.next
		}
		if v.alarm != nil {
			alarms = append(alarms, *v.alarm)
			c.log.Warn("alert", "site", p.site, "gate", p.gateName.gate, "kind", v.alarm.kind, "text", v.alarm.text)
		}
		if v.receipt != nil {
			out = append(out, reply{p.gateName, v.receipt})
		}
	}
	if len(adds) > 0 {
		if err := c.store.add(ctx, now.UnixMilli(), adds); err != nil {
			return 0, err
		}
		for _, a := range adds {
			*a.log = a.next
			c.newest[a.next.gate.id] = max(c.newest[a.next.gate.id], a.next.id)
		}
		for n, l := range fresh {
			if l.tree.size > 0 {
				c.logs[n] = l
			}
		}
	}
	c.repeated.Add(repeated)
	for _, a := range alarms {
		if a.gate == 0 {
			continue // nobody's gate: the log has it
		}
		if err := c.store.alert(ctx, a.gate, a.kind, a.about, a.text, now.UnixMilli()); err != nil {
			c.log.Error("cannot store an alert", "kind", a.kind, "error", err)
		}
	}
	for _, r := range out {
		c.replies.put(r)
	}
	if len(adds) > 0 {
		c.relay.wake()
	}
	return done, nil
}

// errLater says that a batch must be decided on after this transaction.
var errLater = errors.New("repeats what is being stored")

// verdict is what decide makes of a batch.
type verdict struct {
	now      time.Time
	last     map[*gateLog]*gateLog
	fresh    map[logName]*gateLog
	add      *addition
	receipt  *wire.Receipt
	alarm    *alarm
	repeated uint64
	stands   string // of a refusal
}

func (c *committer) decide(ctx context.Context, p *prepared, v *verdict) error {
	if p.err != nil {
		return c.refuse(ctx, p, v, nil, wire.RefusedMalformed, p.err.Error())
	}
	if p.signer != "" {
		return c.refuse(ctx, p, v, nil, wire.RefusedKey, p.signer)
	}
	b := p.batch
	n := logName{p.gate.id, b.Epoch}
	l := c.logs[n]
	if l == nil {
		l = v.fresh[n]
	}
	if l == nil {
		var err error
		if l, err = c.store.log(ctx, p.gate, b.Epoch); err != nil {
			return fmt.Errorf("cannot read log %s/%s/%s: %w", p.site, p.gate.name, b.Epoch, err)
		}
		if l == nil {
			l = &gateLog{gate: p.gate, epoch: b.Epoch, public: p.public}
			v.fresh[n] = l
		} else {
			c.logs[n] = l
		}
	}
	cur := l
	if x := v.last[l]; x != nil {
		cur = x
	}
	end := b.First + b.Count
	if len(b.Edges) > 0 && cur.public == p.public {
		return c.ahead(ctx, p, v, cur)
	}
	if b.First > cur.tree.size {
		if cur.public != p.public {
			return c.refuse(ctx, p, v, cur, wire.RefusedEpoch, anotherDevice)
		}
		return c.refuse(ctx, p, v, cur, wire.RefusedGap, "entries from "+strconv.FormatUint(cur.tree.size, 10)+" on are missing")
	}
	// What came before must be what is stored, to the byte: its leaves say so.
	overlap := min(cur.tree.size, end) - b.First
	same, err := c.same(ctx, l, cur, p, overlap)
	if err != nil {
		return err
	}
	parted := func(code wire.Code, why string) error {
		if err := c.stands(ctx, l, cur, b.First+same, v); err != nil {
			return err
		}
		return c.refuse(ctx, p, v, cur, code, why)
	}
	switch {
	case b.Ask && b.First+same == end && end < cur.tree.size:
		return parted(wire.RefusedStands, "these are stored, and more: an old copy of the gate's medium was restored")
	case cur.public != p.public:
		return parted(wire.RefusedEpoch, anotherDevice)
	case same < overlap:
		return parted(wire.RefusedFork, "entries that were stored before have other content now")
	}
	v.repeated = overlap
	if end <= cur.tree.size {
		head, err := c.receiptFor(cur, v.now)
		if err != nil {
			return err
		}
		v.receipt = &wire.Receipt{Epoch: cur.epoch, Size: cur.tree.size, Head: string(head)}
		return nil
	}
	if cur.id == 0 && cur.tree.size == 0 {
		n, err := c.store.epochsSince(ctx, p.gate.id, v.now.Add(-day).UnixMilli())
		if err != nil {
			return err
		}
		for _, x := range v.last { // those of this transaction
			if x.id == 0 && x.gate.id == p.gate.id {
				n++
			}
		}
		if n >= maxEpochs {
			return c.refuse(ctx, p, v, cur, wire.RefusedMany, fmt.Sprintf("this gate has begun %d epochs within a day", n))
		}
	}
	next := *cur
	next.tree = cur.tree.clone()
	for _, h := range p.leaves[overlap:] {
		next.tree.append(h)
	}
	if next.tree.root() != p.head.Root {
		return parted(wire.RefusedFork, "the head is not of the entries that are stored followed by these")
	}
	from := b.First + overlap
	pieces := p.pieces
	if overlap > 0 {
		pieces = p.cut(from)
	}
	next.blockKey = edge.BlockKey{}
	copy(next.blockKey[:], pieces[len(pieces)-1].key)
	if first := &pieces[0]; from%edge.BlockSize != 0 {
		switch {
		case cur.blockKey == edge.BlockKey{}:
			// Others of this block were destroyed: its key must not come back.
			first.blind()
			if len(pieces) == 1 {
				next.blockKey = edge.BlockKey{}
			}
		case len(first.key) > 0 && edge.BlockKey(first.key) != cur.blockKey:
			return parted(wire.RefusedFork, "the key of an incomplete block has changed")
		}
	}
	if next.tree.size > 0 && from == 0 {
		next.parent, next.forked = parentOf(p.cols[0])
	}
	next.head = []byte(b.Head)
	if next.receipt, err = wire.Cosign(next.head, v.now, c.cfg.Signer); err != nil {
		return err
	}
	v.add = &addition{log: l, before: cur.tree.size, first: from, cols: p.cols[overlap:], pieces: pieces, next: next}
	v.receipt = &wire.Receipt{Epoch: next.epoch, Size: next.tree.size, Head: string(next.receipt)}
	return c.suspect(ctx, cur, &v.add.next, v)
}

// twoDevices is the alert of two devices with one identity.
const twoDevices = "two_devices"

// suspect raises an alert when it looks as if two devices lived under one name:
// both were restored from one image, or one goes on that was replaced. Both are
// stored, each in its epoch; which is the gate is for a person to say.
func (c *committer) suspect(ctx context.Context, cur, next *gateLog, v *verdict) error {
	g := next.gate.id
	if _, ok := c.newest[g]; !ok {
		var id sql.NullInt64
		if err := c.store.r.QueryRowContext(ctx, `SELECT MAX(id) FROM log WHERE gate = $1`, g).Scan(&id); err != nil {
			return fmt.Errorf("cannot read the gate's epochs: %w", err)
		}
		c.newest[g] = id.Int64
	}
	newest := c.newest[g]
	switch {
	case newest == 0: // its first epoch
	case cur.id == newest:
	case cur.id != 0:
		v.alarm = &alarm{gate: g, kind: twoDevices, about: next.epoch.String(), text: "an epoch goes on although another one has begun since"}
	case cur.tree.size == 0 && next.parent == 0:
		if ok, err := c.replaced(ctx, newest, next); ok || err != nil {
			return err
		}
		v.alarm = &alarm{gate: g, kind: string(wire.RefusedEpoch), about: next.epoch.String(), text: "a new epoch begins that does not say which one it follows"}
	case cur.tree.size == 0:
		var other string
		err := c.store.r.QueryRowContext(ctx, `SELECT epoch FROM log WHERE gate = $1 AND parent = $2 ORDER BY id LIMIT 1`, g, next.parent.String()).Scan(&other)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("cannot read the gate's epochs: %w", err)
		}
		if other != "" {
			v.alarm = &alarm{gate: g, kind: twoDevices, about: next.epoch.String(), text: "epochs " + other + " and " + next.epoch.String() + " both follow " + next.parent.String()}
		}
	}
	return nil
}

// anotherDevice refuses what a second device writes under the first one's epoch.
const anotherDevice = "this epoch belongs to another device"

// same says how many of the first n leaves of a batch are those that are stored, up
// to the first that is not.
func (c *committer) same(ctx context.Context, l, cur *gateLog, p *prepared, n uint64) (uint64, error) {
	if n == 0 {
		return 0, nil
	}
	if cur != l {
		return 0, errLater
	}
	stored, err := c.store.hashes(ctx, c.store.r, l.id, p.batch.First, p.batch.First+n)
	if err != nil {
		return 0, fmt.Errorf("log %s: %w", l.name(), err)
	}
	for i := range stored {
		if stored[i] != p.leaves[i] {
			return uint64(i), nil
		}
	}
	return n, nil
}

// stands has the refusal say that the first n entries are common to both.
func (c *committer) stands(ctx context.Context, l, cur *gateLog, n uint64, v *verdict) error {
	if cur != l {
		return errLater
	}
	root, err := c.store.rootAt(ctx, l, n)
	if err != nil {
		return fmt.Errorf("log %s: %w", l.name(), err)
	}
	h := edge.Head{Origin: edge.Origin(c.cfg.Community, cur.gate.site, cur.gate.name, cur.epoch), Size: n, Root: root}
	v.stands, err = wire.Stand(h, v.now, c.cfg.Signer)
	return err
}

// parentOf reads which epoch this one follows from its first entry.
func parentOf(first columns) (edge.Epoch, uint64) {
	var d struct {
		Parent *edge.Epoch `json:"parent"`
		Forked uint64      `json:"forked"`
	}
	if string(first.kind) != string(edge.KindEpoch) || json.Unmarshal(first.data, &d) != nil || d.Parent == nil {
		return 0, 0
	}
	return *d.Parent, d.Forked
}

// refuse makes the refusal and, but for a gap, which happens in a healthy
// system, an alert.
func (c *committer) refuse(ctx context.Context, p *prepared, v *verdict, cur *gateLog, code wire.Code, why string) error {
	r := &wire.Receipt{Refusal: &wire.Refusal{Code: code, Text: why, At: v.now.UnixMilli(), Stands: v.stands}}
	if p.batch != nil {
		r.Epoch = p.batch.Epoch
	}
	if cur != nil {
		head, err := c.receiptFor(cur, v.now)
		if err != nil {
			return err
		}
		r.Size, r.Head = cur.tree.size, string(head)
	}
	if err := r.SignRefusal(p.site, p.gateName.gate, c.cfg.Signer); err != nil {
		return err
	}
	v.receipt = r
	if code == wire.RefusedGap {
		return nil
	}
	about := ""
	if p.batch != nil && p.gate != nil && p.signer == "" && code != wire.RefusedMany { // the epochs are too many to be named
		about = p.batch.Epoch.String()
	}
	kind := code
	if code == wire.RefusedStands {
		kind = wire.RefusedFork
	}
	v.alarm = &alarm{kind: string(kind), about: about, text: why}
	if p.gate != nil {
		v.alarm.gate = p.gate.id
	}
	return nil
}
