package frame

import (
	"slices"

	"cistern/ingest/repo"
)

// field is one of the fields that are read; the others are passed over.
type field uint32

const (
	fieldSeq field = 1 << iota
	fieldDID
	fieldRepo
	fieldTime
	fieldRev
	fieldSince
	fieldCommit
	fieldPrevData
	fieldTooBig
	fieldRebase
	fieldBlocks
	fieldOps
	fieldHandle
	fieldActive
	fieldStatus
	fieldName
	fieldError
	fieldMessage
)

// fieldsOf says which fields are read of a kind of frame, and which of them it cannot do without. Those that
// the lexicon demands beyond that are for whoever checks the event: without them it is refused with more to say.
func fieldsOf(k Kind) (read, need field) {
	const event = fieldSeq | fieldDID | fieldTime
	switch k {
	case KindCommit:
		return fieldSeq | fieldRepo | fieldTime | fieldRev | fieldSince | fieldCommit | fieldPrevData |
			fieldTooBig | fieldRebase | fieldBlocks | fieldOps, fieldSeq | fieldRepo | fieldRev
	case KindSync:
		return event | fieldRev | fieldBlocks, fieldSeq | fieldDID | fieldRev
	case KindIdentity:
		return event | fieldHandle, fieldSeq | fieldDID
	case KindAccount: // without active, the account would look inactive
		return event | fieldActive | fieldStatus, fieldSeq | fieldDID | fieldActive
	case KindInfo:
		return fieldName | fieldMessage, 0
	case KindError:
		return fieldError | fieldMessage, 0
	}
	return fieldSeq | fieldDID, 0
}

func fieldOf(key []byte) field {
	switch string(key) {
	case "seq":
		return fieldSeq
	case "did":
		return fieldDID
	case "repo":
		return fieldRepo
	case "time":
		return fieldTime
	case "rev":
		return fieldRev
	case "since":
		return fieldSince
	case "commit":
		return fieldCommit
	case "prevData":
		return fieldPrevData
	case "tooBig":
		return fieldTooBig
	case "rebase":
		return fieldRebase
	case "blocks":
		return fieldBlocks
	case "ops":
		return fieldOps
	case "handle":
		return fieldHandle
	case "active":
		return fieldActive
	case "status":
		return fieldStatus
	case "name":
		return fieldName
	case "error":
		return fieldError
	case "message":
		return fieldMessage
	}
	return 0
}

// readBody reads the rest of the message and says what is wrong with it. A field that is CBOR but not
// what it should be does not keep the later ones from being read: seq may be among them.
func (f *Frame) readBody(r *reader) (why string) {
	if f.Kind == KindUnknown && r.left() > 0 && r.b[r.at]>>5 != repo.MajorMap {
		r.skip(depthMax)
		return r.end()
	}
	read, need := fieldsOf(f.Kind)
	var seen field
	for n := r.count(repo.MajorMap, "the body is no map"); n > 0 && !r.failed(); n-- {
		key := r.span(repo.MajorText, "a key is no text")
		at, name := r.at, fieldOf(key)&read
		switch {
		case r.failed():
		case name == 0:
			r.skip(depthMax)
		case seen&name != 0:
			r.skip(depthMax)
			why = first(why, "a field stands there twice")
		default:
			seen |= name
			f.readField(r, name)
			if r.failed() {
				if f.Kind != KindUnknown {
					why = first(why, r.why)
				}
				r.at, r.why = at, ""
				r.skip(depthMax)
			}
		}
	}
	if seen&need != need {
		why = first(why, "a field is missing")
	}
	return first(r.end(), why)
}

// first is the first reason that is one.
func first(why, other string) string {
	if why != "" {
		return why
	}
	return other
}

func (f *Frame) readField(r *reader, name field) {
	switch name {
	case fieldSeq:
		f.Seq = r.seq()
	case fieldDID, fieldRepo:
		f.DID = r.text(didBytesMax)
	case fieldTime:
		f.Time = r.micros()
	case fieldRev:
		f.Rev = r.text(wordBytesMax)
	case fieldSince:
		f.Since = r.textOrNull(wordBytesMax)
	case fieldCommit:
		f.Commit, _ = r.link()
	case fieldPrevData:
		f.PrevData = r.linkOrNull()
	case fieldTooBig:
		f.TooBig = !r.null() && r.bool()
	case fieldRebase:
		f.Rebase = !r.null() && r.bool()
	case fieldBlocks:
		if !r.null() {
			f.Blocks = r.span(repo.MajorBytes, "blocks are no bytes")
		}
	case fieldOps:
		f.readOps(r)
	case fieldHandle:
		f.Handle = r.textOrNull(handleBytesMax)
	case fieldActive:
		f.Active = r.bool()
	case fieldStatus:
		f.Status = r.textOrNull(wordBytesMax)
	case fieldName, fieldError:
		f.Name = r.text(wordBytesMax)
	case fieldMessage:
		f.Message = r.cut(messageBytesMax)
	}
}

// readOps reads an array of {"action", "path", "cid", "prev"}.
func (f *Frame) readOps(r *reader) {
	if r.null() {
		return
	}
	n := r.count(repo.MajorArray, "ops are no array")
	if n > opsMax {
		r.fail("too many ops")
		return
	}
	f.Ops = slices.Grow(f.Ops, min(n, r.left()/opBytesMin))
	for ; n > 0 && !r.failed(); n-- {
		f.Ops = append(f.Ops, readOp(r))
	}
}

func readOp(r *reader) (op Op) {
	var hasAction, hasPath, hasCID, hasPrev bool
	for n := r.count(repo.MajorMap, "an op is no map"); n > 0 && !r.failed(); n-- {
		twice := false
		switch key := r.span(repo.MajorText, "a key of an op is no text"); string(key) {
		case "action":
			twice, hasAction = hasAction, true
			op.Action = r.action()
		case "path": // whether it is UTF-8 is for the tree to say, which holds bytes
			twice, hasPath = hasPath, true
			op.Path = r.span(repo.MajorText, "path is no text")
		case "cid":
			twice, hasCID = hasCID, true
			op.CID = r.linkOrNull()
		case "prev":
			twice, hasPrev = hasPrev, true
			op.Prev = r.linkOrNull()
		default:
			r.skip(depthMax)
		}
		if twice {
			r.fail("a field of an op stands there twice")
		}
	}
	if !hasAction || !hasPath {
		r.fail("an op lacks its action or its path")
	}
	return op
}
