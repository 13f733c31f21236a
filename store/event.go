package store

import "cistern/ingest/repo"

// Kind is the subject of an event.
type Kind uint8

const (
	// KindRecord: a record was created, updated or deleted.
	KindRecord Kind = 1 + iota
	// KindAccount: an account's status changed.
	KindAccount
	// KindIdentity: an account's handle, PDS or key changed.
	KindIdentity
	// KindRepo: the condition of a repository changed.
	KindRepo
)

// Action is what a commit did to a record.
type Action uint8

const (
	// Create, Update and Delete are the repo operations of the protocol.
	Create Action = 1 + iota
	Update
	Delete
)

var actionNames = [...]string{"", "create", "update", "delete"}

// String returns the protocol's word.
func (a Action) String() string { return enumName(actionNames[:], uint8(a)) }

// Event is one event of the log as readers see it. Byte slices are valid only during the callback.
type Event struct {
	ID   uint64
	Time int64 // unix microseconds, strictly rising with ID
	Kind Kind
	DID  string

	Rev string // KindRecord; KindRepo: of the copy, "" without a copy

	// KindRecord:
	Live       bool // from the firehose, not from a backfill
	Action     Action
	Collection []byte
	Rkey       []byte
	CID        repo.CID // zero for Delete
	Record     []byte   // DAG-CBOR, nil for Delete

	// KindAccount and KindIdentity, as of the event; KindRepo has the Status of ConditionGone:
	Status Status
	Handle string // as the DID document claims, unchecked; "" if it claims none

	// KindIdentity:
	PDS string

	// KindRepo:
	Condition Condition
	Reason    ErrorKind // of ConditionFailing
	Since     int64     // unix seconds since when it is failing or gone, 0: unknown
	NextLook  int64     // unix seconds of the next attempt, as of the event; 0: unknown or never
}
