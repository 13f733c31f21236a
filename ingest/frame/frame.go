package frame

import (
	"fmt"

	"cistern/ingest/repo"
)

// Kind is the type of a frame.
type Kind uint8

// The kinds of frame: the message types of subscribeRepos, error frames (op -1), and the rest.
const (
	KindUnknown Kind = iota
	KindCommit
	KindSync
	KindIdentity
	KindAccount
	KindInfo
	KindError
)

// Op is one record operation of a #commit as its host states it. Only the types are checked here.
type Op struct {
	Action string   // create, update or delete
	Path   []byte   // refers to the message
	CID    repo.CID // zero for null
	Prev   repo.CID // zero when absent
}

// Frame is one message.
type Frame struct {
	Kind Kind
	Seq  int64  // 0 for info and error frames, and for unknown frames without one
	DID  string // "repo" of a commit
	Time int64  // unix microseconds, 0 if absent or not a datetime

	// KindCommit; of these KindSync has Rev and Blocks:
	Rev      string
	Since    string   // "" for null
	Commit   repo.CID // zero for a link that is not a dag-cbor sha-256 CID
	PrevData repo.CID // zero when absent
	TooBig   bool
	Rebase   bool
	Blocks   []byte // CAR, refers to the message
	Ops      []Op

	// KindIdentity:
	Handle string

	// KindAccount:
	Active bool
	Status string // "" when absent

	// KindInfo: name (OutdatedCursor); KindError: error (FutureCursor, ConsumerTooSlow).
	Name    string
	Message string
}

// Decode reads a whole message into f, and reuses the memory of f.Ops. The error is
// repo.ErrInvalid; f then has only Kind, Seq, DID and Rev, as far as they are readable, so that the
// repository can be fetched. They are looked for in the first BytesMax bytes of a longer message.
func (f *Frame) Decode(message []byte) error {
	*f = Frame{Ops: f.Ops[:0]}
	r := reader{b: message[:min(len(message), BytesMax)]}
	kind := readHeader(&r)
	if r.failed() {
		return fmt.Errorf("decode frame of %d bytes: header: %s: %w",
			len(message), r.why, repo.ErrInvalid)
	}
	f.Kind = kind
	why := f.readBody(&r)
	if len(message) > BytesMax {
		why = fmt.Sprintf("longer than %d bytes", BytesMax)
	}
	if why != "" {
		*f = Frame{Kind: f.Kind, Seq: f.Seq, DID: f.DID, Rev: f.Rev, Ops: f.Ops[:0]}
		return fmt.Errorf("decode %s frame of %d bytes, seq %d, did %.80q: %s: %w",
			f.Kind, len(message), f.Seq, f.DID, why, repo.ErrInvalid)
	}
	return nil
}

// readHeader reads {"op": integer, "t": text}.
func readHeader(r *reader) Kind {
	var op int8
	var t []byte
	var hasOp, hasT bool
	for n := r.count(repo.MajorMap, "no map"); n > 0 && !r.failed(); n-- {
		switch key := r.span(repo.MajorText, "a key is no text"); {
		case string(key) == "op" && !hasOp:
			op, hasOp = r.op(), true
		case string(key) == "t" && !hasT:
			t, hasT = r.span(repo.MajorText, "t is no text"), true
		case string(key) == "op" || string(key) == "t":
			r.fail("a field is there twice")
		default:
			r.skip(depthMax)
		}
	}
	switch {
	case !hasOp:
		r.fail("no op")
	case op == -1:
		return KindError
	case op == 1:
		return kindOf(t)
	}
	return KindUnknown
}

func kindOf(t []byte) Kind {
	switch string(t) {
	case "#commit":
		return KindCommit
	case "#sync":
		return KindSync
	case "#identity":
		return KindIdentity
	case "#account":
		return KindAccount
	case "#info":
		return KindInfo
	}
	return KindUnknown
}

// String returns the type as in messages, for logs and metrics.
func (k Kind) String() string {
	switch k {
	case KindCommit:
		return "commit"
	case KindSync:
		return "sync"
	case KindIdentity:
		return "identity"
	case KindAccount:
		return "account"
	case KindInfo:
		return "info"
	case KindError:
		return "error"
	}
	return "unknown"
}
