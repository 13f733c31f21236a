package store

import "hash/crc32"

// Status is the account status as it is shown, in the protocol's words
// (com.atproto.sync.getRepoStatus). Origin is the party that stated it. The zero Status is an
// active account.
type Status uint8

const (
	// StatusActive is an account in good standing.
	StatusActive Status = iota
	// StatusTakendown to StatusDeleted are inactive and hidden from readers.
	StatusTakendown
	StatusSuspended
	StatusDeactivated
	StatusDeleted
	// StatusNotFound is a repository that its host does not know (RepoNotFound). Hidden. The
	// protocol has no word for it: consumers are told that the account is not active, without a
	// reason.
	StatusNotFound
	// StatusInactive is an account that its host calls inactive for a reason we do not know.
	// Hidden.
	StatusInactive
)

var statusNames = [...]string{"active", "takendown", "suspended", "deactivated",
	"deleted", "notfound", "inactive"}

// String returns the name of the status in the admin endpoints.
func (s Status) String() string { return enumName(statusNames[:], uint8(s)) }

// Hidden reports whether queries and the log leave the account's records out.
func (s Status) Hidden() bool { return s != StatusActive }

// Word returns the protocol's word for a hidden status, "" if there is none or the account is
// active.
func (s Status) Word() string {
	switch s {
	case StatusTakendown, StatusSuspended, StatusDeactivated, StatusDeleted:
		return s.String()
	}
	return ""
}

// Origin is the party that stated a Status, which decides which party can end it.
type Origin uint8

const (
	// OriginHost: the account's own host stated it, or a PDS that was its host. The host that the
	// DID document names has the last word.
	OriginHost Origin = iota
	// OriginRelay: a relay stated it, and the account's host did not state the same. Such a
	// takedown or suspension is the relay's own decision: it stands until that relay says
	// otherwise.
	OriginRelay
	// OriginDirectory: the DID has no document.
	OriginDirectory
)

var originNames = [...]string{"host", "relay", "directory"}

// String returns the word in the admin endpoints.
func (o Origin) String() string { return enumName(originNames[:], uint8(o)) }

// Mark is a statement about an account that does not hide it.
type Mark uint8

const (
	// MarkNone: no statement.
	MarkNone Mark = iota
	// MarkThrottled: a relay or host holds back the account's commits.
	MarkThrottled
	// MarkDesynchronized: a relay or host has lost track of the repository.
	MarkDesynchronized
	// MarkReturning: the account is active again, but hidden until Retry.Next because its status
	// changed too often.
	MarkReturning
)

var markNames = [...]string{"", "throttled", "desynchronized", "returning"}

// String returns the word in the admin endpoints, "" for none.
func (m Mark) String() string { return enumName(markNames[:], uint8(m)) }

// SourceID returns the id by which rows name a firehose: a hash of its host, in the form of
// identity.HostOf. Two hosts with equal ids count as one source, which costs at most a question to
// an account's host.
func SourceID(host string) uint32 { return crc32.ChecksumIEEE([]byte(host)) }

// HiddenByRelay reports whether a relay's own decision hides the account, which the account's host
// cannot undo.
func (r *Repo) HiddenByRelay() bool {
	if r.Origin != OriginRelay {
		return false
	}
	return r.Status == StatusTakendown || r.Status == StatusSuspended || r.Status == StatusInactive
}

// Unconfirmed reports whether a deletion was announced and the data is still held: the data is
// wiped when the account's host, or the absence of a DID document, confirms the deletion.
func (r *Repo) Unconfirmed() bool { return r.Status == StatusDeleted && r.Ordinal != 0 }
