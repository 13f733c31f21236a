package frame

import (
	"slices"

	"cistern/ingest/repo"
)

// field is a field that is read; others are skipped.
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

// fieldsOf returns the fields that are read of a kind of frame, and the fields without which it is
// invalid. The check of the event refuses it without the other fields that the lexicon requires,
// and knows more of it then.
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
	case KindAccount: // or an account without active would look inactive
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

// readBody reads the rest of the message and returns what is wrong with it, "" if it is valid.
// After a field of the wrong type it reads the later fields, since seq may be among them.
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
			why = first(why, "a field is there twice")
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

// first returns the first reason that is not empty.
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
		case "path": // not checked to be UTF-8: paths in the tree are bytes
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
			r.fail("a field of an op is there twice")
		}
	}
	if !hasAction || !hasPath {
		r.fail("an op lacks its action or its path")
	}
	return op
}
