package store

import (
	"fmt"

	"cistern/filter"
	"cistern/ingest/repo"
)

// State is the state of a repository on its way to a complete copy. A repository has exactly one
// state, and each state has a gauge.
type State uint8

const (
	// StatePending waits in the pending queue for a fetch, or is being fetched.
	StatePending State = 1 + iota
	// StateSynced is complete and verified as of its rev.
	StateSynced
	// StateResync failed and waits for its retry time; Retry states the reason and the time.
	StateResync
	// StateGone is unavailable: deactivated, suspended, takendown, or not found.
	StateGone
	// StateIdle is known and not followed; its copy is kept.
	StateIdle
	// StateDraining has a complete copy, and live commits buffered during its fetch still to be
	// applied to it. It holds at least one buffered commit.
	StateDraining
)

var stateNames = [...]string{"", "pending", "synced", "resync", "gone", "idle", "draining"}

// String returns the name used by the gauges, the admin endpoints and the command line.
func (s State) String() string {
	if s == stateUnknown {
		return "unknown"
	}
	return enumName(stateNames[:], uint8(s))
}

// ParseState returns the state with a name that String returns.
func ParseState(s string) (State, error) {
	i, err := enumValue(stateNames[:], "state", s)
	return State(i), err
}

// Why is the reason for which a repository is followed. Untracked repositories are idle or gone.
type Why uint8

const (
	// Untracked: not followed.
	Untracked Why = iota
	// ByOperator: added by name; kept regardless of its records.
	ByOperator
	// ByNetwork: found by listing a host or by the firehose, while every repository was followed.
	ByNetwork
	// BySignal: found with a record in a collection that a signal names. It is forgotten if it has
	// no such record.
	BySignal
)

var whyNames = [...]string{"no", "operator", "network", "signal"}

// String returns the word in the admin endpoints.
func (w Why) String() string { return enumName(whyNames[:], uint8(w)) }

// ErrorKind is the class of the last failure; the gauges count repositories by it.
type ErrorKind uint8

const (
	// NoError: the last attempt did not fail.
	NoError ErrorKind = iota
	// RateLimited: the host refused the request because of a rate limit.
	RateLimited
	// Transport: the host could not be reached, or broke the connection.
	Transport
	// Generic: the answer of the host cannot be used (invalid, refused, not resolvable).
	Generic
)

var kindNames = [...]string{"", "ratelimited", "transport", "generic"}

// String returns the word in gauges (error_<kind>) and admin endpoints.
func (k ErrorKind) String() string { return enumName(kindNames[:], uint8(k)) }

// Verified is the extent to which a repository was verified when it was last written.
type Verified uint8

const (
	// VerifiedFull: every hash, the tree and the signature.
	VerifiedFull Verified = iota
	// VerifiedHashes: every hash and the tree, but no signature (--verify none).
	VerifiedHashes
	// VerifiedOps: a live commit since the last full copy came without the proof that its
	// operations are all that changed; hashes, signature, and what the operations wrote were
	// verified.
	VerifiedOps
	// VerifiedFormerKey: everything, but the signature is by a key that the DID document had at
	// the time of the rev and no longer has (the account migrated and has not written since).
	VerifiedFormerKey
)

var verifiedNames = [...]string{"full", "hashes", "ops", "formerkey"}

// String returns the word in the admin endpoints.
func (v Verified) String() string { return enumName(verifiedNames[:], uint8(v)) }

// Ordinal identifies a repository's bulk rows. Ordinals rise in the order of first imports; 0 means
// not assigned yet. They take 5 bytes in keys.
type Ordinal uint64

// OrdinalMax is the largest ordinal that a key holds.
const OrdinalMax Ordinal = 1<<40 - 1

// PendingKey is a repository's place in the pending queue.
type PendingKey struct {
	Host     uint32 `cbor:"1,keyasint,omitempty"` // HostID, 0 while unresolved
	Priority uint8  `cbor:"2,keyasint,omitempty"` // lower first
	Enqueue  uint64 `cbor:"3,keyasint,omitempty"` // rises with every enqueue; PutRepo assigns it
}

// Priorities of the pending queue, in the order of service.
const (
	PriorityOperator  uint8 = 1
	PriorityRetry     uint8 = 2
	PriorityDiscovery uint8 = 3
)

// Retry describes the recent failures of a repository. It survives requeueing; only a success
// resets it.
type Retry struct {
	Kind  ErrorKind `cbor:"1,keyasint,omitempty"`
	Count uint32    `cbor:"2,keyasint,omitempty"` // failures in a row
	// unix seconds at which a row in StateResync or StateGone is due again, 0 = never
	Next  int64 `cbor:"3,keyasint,omitempty"`
	Since int64 `cbor:"4,keyasint,omitempty"` // unix seconds of the first failure in a row
	// last error, or why a hidden account waits; bounded to ErrorBytesMax
	Error string `cbor:"5,keyasint,omitempty"`
	// Lagging reports that the failure is that the host has an older rev than was announced.
	Lagging bool `cbor:"6,keyasint,omitempty"`
}

// ErrorBytesMax bounds the error text kept in a row: hosts choose part of it.
const ErrorBytesMax = 300

// Repo is the row of one repository. One owner writes it, under Store.Lock.
type Repo struct {
	DID string `cbor:"-"`

	State   State  `cbor:"1,keyasint"`
	Status  Status `cbor:"2,keyasint,omitempty"`
	Tracked Why    `cbor:"3,keyasint,omitempty"`
	// raised by every new attempt, wipe, untrack and account change
	Attempt  uint64   `cbor:"4,keyasint,omitempty"`
	Verified Verified `cbor:"5,keyasint,omitempty"`

	Ordinal   Ordinal `cbor:"6,keyasint,omitempty"`
	NextBlock uint32  `cbor:"7,keyasint,omitempty"` // number of the next record block
	// rev of our copy, "" before the first import
	Rev    string   `cbor:"8,keyasint,omitempty"`
	Data   repo.CID `cbor:"9,keyasint,omitempty"`  // MST root of our copy
	Commit []byte   `cbor:"10,keyasint,omitempty"` // the signed commit block
	// record rows that are shown or hidden, not shelved
	Records int64 `cbor:"11,keyasint,omitempty"`
	// block rows, including superseded ones until they are pruned
	Blocks int64 `cbor:"12,keyasint,omitempty"`

	PDS    string `cbor:"13,keyasint,omitempty"` // origin URL of the host, as last resolved
	Handle string `cbor:"14,keyasint,omitempty"` // as the DID document claims, unchecked
	Key    string `cbor:"15,keyasint,omitempty"` // signing key, multibase

	Pending PendingKey `cbor:"16,keyasint"`
	Retry   Retry      `cbor:"17,keyasint"`
	SeenRev string     `cbor:"18,keyasint,omitempty"` // highest rev seen without its records
	Missing uint32     `cbor:"19,keyasint,omitempty"` // RepoNotFound answers in a row
	Updated int64      `cbor:"20,keyasint,omitempty"` // unix seconds of the last write

	// unix microseconds of the newest #account event, at most the time of its arrival
	AccountTime int64 `cbor:"21,keyasint,omitempty"`
	// unix microseconds of the newest #identity event
	IdentityTime int64 `cbor:"22,keyasint,omitempty"`
	// unix seconds when PDS, Handle and Key were read from the document; 0: read it again
	Resolved int64 `cbor:"23,keyasint,omitempty"`
	// chain breaks in a row, for the refetch budget
	Breaks uint32 `cbor:"24,keyasint,omitempty"`
	Broken int64  `cbor:"25,keyasint,omitempty"` // unix seconds of the last break
	// the next fetch first asks the host whether it has a newer rev
	Recheck bool `cbor:"26,keyasint,omitempty"`
	// Listed is the op number at which the next listing of this ordinal begins. It is above 0 once
	// the repository is imported.
	Listed      uint32 `cbor:"27,keyasint,omitempty"`
	Hidden      uint32 `cbor:"28,keyasint,omitempty"` // record rows without a valid collection/rkey
	Collections uint32 `cbor:"29,keyasint,omitempty"` // collections with records that are shown
	// a difference was written in part: the records are not those of one rev
	Torn bool `cbor:"30,keyasint,omitempty"`

	// Filter is the selection of the filter that chose the records: exactly those that it wants are
	// shown. Sweep and Lacks mark the exceptions.
	Filter uint32 `cbor:"31,keyasint,omitempty"`
	// records that only an older version wanted may remain: they must be deleted
	Sweep bool `cbor:"32,keyasint,omitempty"`
	// records that no older version wanted are missing: they must be fetched
	Lacks bool `cbor:"33,keyasint,omitempty"`
	// Shelved counts the further record rows that are kept but not shown, since the filter does not
	// want them.
	Shelved int64 `cbor:"34,keyasint,omitempty"`

	Origin Origin `cbor:"35,keyasint,omitempty"` // party that stated Status
	// AccountSource is the SourceID of the firehose that sent the newest #account event; 0 if the
	// account's host has answered since, so that any source may send a newer one.
	AccountSource uint32 `cbor:"36,keyasint,omitempty"`
	// a statement about the account that does not hide it
	Mark Mark `cbor:"37,keyasint,omitempty"`
	// Withheld reports that a source has withheld events of the account, because it marked or hid
	// the account, and that no commit has been applied since. The source may withhold more after an
	// #account that says active: a relay that throttles an account passes on the events of the
	// account's host.
	Withheld bool `cbor:"42,keyasint,omitempty"`
	// Charged is the debt from recent status changes of the account, in records, as of ChargedAt,
	// in unix seconds: package ingest's budget of status changes.
	Charged   uint32 `cbor:"38,keyasint,omitempty"`
	ChargedAt int64  `cbor:"39,keyasint,omitempty"`

	// Asked rises when the operator requests a fetch of a repository that is pending: a fetch that
	// began before the request does not satisfy it.
	Asked uint32 `cbor:"48,keyasint,omitempty"`

	// FutureDue is the unix second at which a synced repository is fetched again because a commit
	// was dropped whose rev was in the future by our clock; 0: never.
	FutureDue int64 `cbor:"40,keyasint,omitempty"`
	// TornRev is the rev of a difference that was written in part, "" if there is none: some of its
	// events are in the log, so that no copy with a lower rev may follow.
	TornRev string `cbor:"41,keyasint,omitempty"`

	// Lapsed is the number below which blocks have gone, or go with the import that wrote them, in an
	// ephemeral store (lapse.go).
	Lapsed uint32 `cbor:"52,keyasint,omitempty"`

	// Told, ToldKind and ToldStatus are what the newest event of kind repo says of the repository,
	// zero if it had none. PutRepo sets them.
	Told       Condition `cbor:"49,keyasint,omitempty"`
	ToldKind   ErrorKind `cbor:"50,keyasint,omitempty"`
	ToldStatus Status    `cbor:"51,keyasint,omitempty"`

	// loaded is the stored part of the row from which gauges derive: a write moves the gauges by
	// the difference.
	loaded rowState
	// reached is the state after the last transition since the row was loaded, 0 if there was none.
	reached State
}

// rowState is the part of a row that indexes and gauges derive from.
type rowState struct {
	exists  bool
	state   State
	kind    ErrorKind
	pending PendingKey
	due     int64 // Repo.Due
	ordinal Ordinal
	records int64
	blocks  int64
	behind  bool
	lacking bool
	hidden  bool
	shows   bool // records, unless the account is hidden
	mark    Mark
}

func (r *Repo) rowState() rowState {
	return rowState{exists: true, state: r.State, kind: r.Retry.Kind, pending: r.Pending, due: r.Due(),
		ordinal: r.Ordinal, records: r.Records, blocks: r.Blocks, behind: r.Behind(), mark: r.Mark,
		lacking: r.Tracked != Untracked && (r.Lacks && r.State != StateGone || r.Sweep),
		hidden:  r.Status.Hidden(),
		shows:   r.Collections > 0}
}

// Due returns the unix second at which the row is due for another attempt or status check, 0 for
// never.
func (r *Repo) Due() int64 {
	switch r.State {
	case StateResync, StateGone:
		return r.Retry.Next
	case StateSynced:
		return r.FutureDue
	}
	return 0
}

// Behind reports whether the repository is followed and is known to have a later rev than our copy.
func (r *Repo) Behind() bool {
	return r.Tracked != Untracked && r.State != StateGone && r.State != StateIdle && r.SeenRev > r.Rev
}

// Whole reports whether the record rows are all those of the tree of r.Data, shown or not. f is the
// filter that chose them.
func (r *Repo) Whole(f *filter.Filter) bool {
	return (f.WantsAll() || f.StoresAll()) && !r.Lacks && !r.Torn
}

// Known reports whether the row is on disk already.
func (r *Repo) Known() bool { return r.loaded.exists }

func enumName(names []string, i uint8) string {
	if int(i) < len(names) {
		return names[i]
	}
	return fmt.Sprintf("unknown(%d)", i)
}

func enumValue(names []string, noun, s string) (uint8, error) {
	for i, n := range names {
		if n == s && n != "" {
			return uint8(i), nil
		}
	}
	return 0, fmt.Errorf("unknown %s %q", noun, s)
}
