package simnet

import (
	"bytes"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// altered returns the #commit as the fault alters it; nil if this commit cannot be altered so.
func (p *commitParts) altered(e *event, f StreamFault) *event {
	switch f.Kind {
	case StreamForgedExtra:
		return p.forged(e)
	case StreamLyingSince:
		altered := e.with(map[string]any{"since": shiftRev(p.now.rev, -time.Hour)})
		if f.Bare {
			altered.fields["since"] = nil
			altered.encode()
		}
		return altered
	case StreamNoPrevData:
		changes := map[string]any{"prevData": nil, "ops": p.opFields(false)}
		if f.Bare {
			changes["blocks"] = p.car(p.now.root, p.now.newNodes(p.old), nil)
		}
		return e.with(changes)
	case StreamForgedSignature:
		return p.signed(e, p.now.rev, p.foreignKey())
	case StreamFutureRev:
		return p.signed(e, tid(time.Now().Add(24*time.Hour), p.account.index), p.key)
	case StreamForgedRecord:
		return p.replaced(e, func(b []byte) []byte {
			b = bytes.Clone(b)
			b[len(b)/2] ^= 1
			return b
		})
	case StreamMissingRecord:
		return p.replaced(e, func([]byte) []byte { return nil })
	case StreamWrongDID:
		other := p.account.net.other(p.account).did
		if other == e.did {
			return nil
		}
		return e.with(map[string]any{"repo": other})
	case StreamTooBig:
		return e.with(map[string]any{"tooBig": true, "ops": []any{}, "blocks": []byte{}})
	case StreamSyncInstead:
		at, _ := syntax.ParseDatetimeTime(e.fields["time"].(string))
		return syncEvent(p.now, p.now.rev, at)
	case StreamOversized:
		return e.with(map[string]any{"blocks": append(bytes.Clone(e.fields["blocks"].([]byte)),
			make([]byte, 5<<20)...)})
	case StreamManyOps:
		op := map[string]any{"action": "delete", "path": "app.test.many/ops", "cid": nil}
		return e.with(map[string]any{"ops": slices.Repeat([]any{op}, 1001)})
	}
	return nil
}

// foreignKey returns a key of no account.
func (p *commitParts) foreignKey() *signer {
	return newSigner(p.account.net.derive("stranger", p.account.index, 0), p.key.p256 != nil)
}

// signed is the #commit with another rev or another signature, and so another CID.
func (p *commitParts) signed(e *event, rev string, key *signer) *event {
	root := commitBlock(p.now.did, rev, p.now.data, key.sign)
	return e.with(map[string]any{
		"rev": rev, "commit": root.cid, "blocks": p.car(root, p.proof(), nil),
	})
}

// replaced is the #commit with other bytes, or none, for the first record that it changed.
func (p *commitParts) replaced(e *event, change func([]byte) []byte) *event {
	i := slices.IndexFunc(p.net, func(op Op) bool { return op.CID.Defined() })
	if i < 0 {
		return nil
	}
	victim := p.net[i].CID
	return e.with(map[string]any{"blocks": p.car(p.now.root, p.proof(), func(op Op) []byte {
		if op.CID == victim {
			return change(op.Record)
		}
		return op.Record
	})})
}

// forged is a #commit of one more record between the one before and the true one.
func (p *commitParts) forged(e *event) *event {
	if p.old == nil {
		return nil
	}
	earlier, later := syntax.TID(p.old.rev).Time(), syntax.TID(p.now.rev).Time()
	rev := tid(earlier.Add(later.Sub(earlier)/2), p.account.index)
	if rev <= p.old.rev {
		return nil
	}
	path := "app.bsky.feed.post/" + rev
	l := newLeaf(path, EncodeRecord(Post("this was never said")))
	i, found := p.old.find(path)
	if found {
		return nil
	}
	leaves := slices.Insert(slices.Clone(p.old.leaves), i, l)
	q := &commitParts{account: p.account, old: p.old, key: p.foreignKey()}
	q.now = newSnapshot(p.now.did, rev, leaves, q.key, false)
	q.ops = []Op{{Action: "create", Path: path, CID: l.cid, Record: l.data}}
	at, _ := syntax.ParseDatetimeTime(e.fields["time"].(string))
	return commitEvent(q, at)
}
