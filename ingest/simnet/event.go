package simnet

import (
	"maps"
	"slices"
	"time"

	"cistern/ingest/repo"
)

// event is one thing that happened to an account, as the streams tell it. It never changes.
type event struct {
	kind   string // the message type, with its hash sign
	did    string
	fields map[string]any // of the message, without seq
	commit *commitParts   // of a #commit
	hidden bool           // hosts keep it to themselves: the account is not active
	// The frame, but for the number of seq between the two.
	head, tail []byte
}

// commitParts is what a #commit was made from, for faults to make another.
type commitParts struct {
	account  *Account
	old, now *snapshot // old is nil for the first commit
	ops      []Op      // as the message states them
	net      []Op      // what they come to, at most one a path
	key      *signer
}

// Limits of the protocol for a #commit; what exceeds them is told by a #sync.
const (
	commitOpsMax    = 200
	commitBlocksMax = 2_000_000
)

// newEvent encodes a message.
func newEvent(kind, did string, fields map[string]any) *event {
	e := &event{kind: kind, did: did, fields: fields}
	e.encode()
	return e
}

// encode writes the frame in two halves around seq, since every stream has its own.
func (e *event) encode() {
	b := appendValue(nil, map[string]any{"t": e.kind, "op": 1})
	b = appendHead(b, 5, uint64(len(e.fields)+1))
	fields := maps.Clone(e.fields)
	fields["seq"] = nil
	for _, k := range sortedKeys(fields) {
		b = appendText(b, k)
		if k == "seq" {
			e.head, b = b, nil
			continue
		}
		b = appendValue(b, fields[k])
	}
	e.tail = b
}

// with is the event with some fields changed; nil removes one.
func (e *event) with(changes map[string]any) *event {
	changed := *e
	changed.fields = maps.Clone(e.fields)
	for k, v := range changes {
		if v == nil {
			delete(changed.fields, k)
			continue
		}
		changed.fields[k] = v
	}
	changed.encode()
	return &changed
}

// errorFrame is the last message of a stream that ends for a reason.
func errorFrame(code, message string) []byte {
	return appendValue(appendValue(nil, map[string]any{"op": -1}),
		map[string]any{"error": code, "message": message})
}

func infoFrame(name, message string) []byte {
	return appendValue(appendValue(nil, map[string]any{"t": "#info", "op": 1}),
		map[string]any{"name": name, "message": message})
}

func identityEvent(did, handle string, at time.Time) *event {
	fields := map[string]any{"did": did, "time": datetime(at)}
	if handle != "" {
		fields["handle"] = handle
	}
	return newEvent("#identity", did, fields)
}

func accountEvent(did string, active bool, status Status, at time.Time) *event {
	fields := map[string]any{"did": did, "time": datetime(at), "active": active}
	if status != "" && status != Active {
		fields["status"] = string(status)
	}
	return newEvent("#account", did, fields)
}

// syncEvent names a rev for the commit, which is its own but after an import.
func syncEvent(s *snapshot, rev string, at time.Time) *event {
	return newEvent("#sync", s.did, map[string]any{
		"did": s.did, "rev": rev, "time": datetime(at), "blocks": encodeCAR(s.root.cid, []block{s.root}),
	})
}

// commitEvent tells of a commit by sync v1.1, or by a #sync if it is too large for one message. The
// operations are those requested, each with the record before the commit as its prev, as the
// reference PDS emits them. The message has the nodes that prove the net changes, so a commit that
// changes nothing has none.
func commitEvent(p *commitParts, at time.Time) *event {
	p.ops, p.net = restate(p.ops)
	if len(p.ops) > commitOpsMax {
		return syncEvent(p.now, p.now.rev, at)
	}
	fields := map[string]any{
		"repo": p.now.did, "rev": p.now.rev, "since": nil, "commit": p.now.root.cid, "time": datetime(at),
		"rebase": false, "tooBig": false, "blobs": []any{}, "ops": p.opFields(true),
		"blocks": p.car(p.now.root, p.proof(), nil),
	}
	if p.old != nil {
		fields["since"], fields["prevData"] = p.old.rev, p.old.data
	}
	if len(fields["blocks"].([]byte)) > commitBlocksMax {
		return syncEvent(p.now, p.now.rev, at)
	}
	e := newEvent("#commit", p.now.did, fields)
	e.commit = p
	return e
}

// restate gives the ops, each with the record before the first op on its path as prev, and the net
// changes.
func restate(ops []Op) (stated, net []Op) {
	first := make(map[string]int, len(ops)) // index in net
	for _, op := range ops {
		i, seen := first[op.Path]
		if !seen {
			i = len(net)
			first[op.Path] = i
			net = append(net, op)
		}
		net[i].CID, net[i].Record = op.CID, op.Record
		op.Prev = net[i].Prev
		stated = append(stated, op)
	}
	return stated, slices.DeleteFunc(net, func(op Op) bool { return op.CID == op.Prev })
}

// proof lists the nodes that prove the net changes.
func (p *commitParts) proof() []block {
	if len(p.net) == 0 {
		return nil
	}
	return p.now.proof(p.net)
}

func (p *commitParts) opFields(prev bool) []any {
	ops := make([]any, 0, len(p.ops))
	for _, op := range p.ops {
		fields := map[string]any{"action": op.Action, "path": op.Path, "cid": optional(op.CID)}
		if prev && op.Prev.Defined() {
			fields["prev"] = op.Prev
		}
		ops = append(ops, fields)
	}
	return ops
}

// car is the CAR of a #commit: the commit, the nodes, and the records that the ops left in the
// tree, as replace wants them.
func (p *commitParts) car(root block, nodes []block, replace func(Op) []byte) []byte {
	seen := make(map[repo.CID]bool)
	blocks := []block{root}
	add := func(b block) {
		if b.data != nil && !seen[b.cid] {
			seen[b.cid] = true
			blocks = append(blocks, b)
		}
	}
	for _, b := range nodes {
		add(b)
	}
	for _, op := range p.ops {
		if i, found := p.now.find(op.Path); !found || p.now.leaves[i].cid != op.CID {
			continue
		}
		data := op.Record
		if replace != nil {
			data = replace(op)
		}
		add(block{cid: op.CID, data: data, leaf: true})
	}
	car := encodeCAR(root.cid, blocks)
	if p.account.net.opts.Clutter {
		car = appendClutter(car)
	}
	return car
}
