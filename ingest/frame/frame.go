package frame

import "cistern/ingest/repo"

// Kind is what a frame tells of.
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

// Op is one record operation of a #commit as its host states it. Nothing is checked here but the types.
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
	Commit   repo.CID // zero for a link that is no dag-cbor sha-256 CID
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

// Decode reads a whole message into f, using the memory of its Ops again. The error is repo.ErrInvalid;
// f.Seq and f.DID are then what could be read before, for the log.
func (f *Frame) Decode(message []byte) error {
	panic("not written yet")
}
