package store

import "hash/crc32"

// Status is the account status as it is shown, in the protocol's words (com.atproto.sync.getRepoStatus).
// Origin says whose word it is. The zero Status is an active account.
type Status uint8

const (
	// StatusActive is an account in good standing.
	StatusActive Status = iota
	// StatusTakendown to StatusDeleted are inactive and hidden from readers.
	StatusTakendown
	StatusSuspended
	StatusDeactivated
	StatusDeleted
	// StatusNotFound is a repository its host does not know (RepoNotFound). Hidden. The protocol has
	// no word for it: consumers are told that the account is not active, without a reason.
	StatusNotFound
	// StatusInactive is an account that its host calls inactive for a reason we do not know. Hidden.
	StatusInactive
)

var statusNames = [...]string{"active", "takendown", "suspended", "deactivated", "deleted", "notfound", "inactive"}

// String is the word for the status in the admin endpoints.
func (s Status) String() string { return enumName(statusNames[:], uint8(s)) }

// Hidden reports whether queries and the log leave the account's records out.
func (s Status) Hidden() bool { return s != StatusActive }

// Word is the protocol's word for a hidden status: "" when there is none, and for an active account.
func (s Status) Word() string {
	switch s {
	case StatusTakendown, StatusSuspended, StatusDeactivated, StatusDeleted:
		return s.String()
	}
	return ""
}

// Origin is whose word a Status is, which decides whose word ends it.
type Origin uint8

const (
	// OriginHost: the account's own host stated it, or a PDS that was its host. The host that the DID
	// document names has the last word.
	OriginHost Origin = iota
	// OriginRelay: a relay stated it, and the account's host did not state the same. A takedown or
	// suspension of that kind is the relay's own: it stands until that relay says otherwise.
	OriginRelay
	// OriginDirectory: the DID has no document.
	OriginDirectory
)

var originNames = [...]string{"host", "relay", "directory"}

// String is the word in the admin endpoints.
func (o Origin) String() string { return enumName(originNames[:], uint8(o)) }

// Mark is what is said of an account that hides nothing.
type Mark uint8

const (
	// MarkNone: nothing.
	MarkNone Mark = iota
	// MarkThrottled: a relay or host holds back the account's commits.
	MarkThrottled
	// MarkDesynchronized: a relay or host has lost track of the repository.
	MarkDesynchronized
	// MarkReturning: the account is active again, and hidden until Retry.Next: its status changed too
	// often.
	MarkReturning
)

var markNames = [...]string{"", "throttled", "desynchronized", "returning"}

// String is the word in the admin endpoints, "" for none.
func (m Mark) String() string { return enumName(markNames[:], uint8(m)) }

// SourceID names a firehose in rows by its host, in the spelling of identity.HostOf. Two hosts with one
// id are taken for one source, which costs no more than a question to an account's host.
func SourceID(host string) uint32 { return crc32.ChecksumIEEE([]byte(host)) }

// HiddenByRelay reports whether the account is hidden by the decision of a relay, which its host's word
// does not undo.
func (r *Repo) HiddenByRelay() bool {
	if r.Origin != OriginRelay {
		return false
	}
	return r.Status == StatusTakendown || r.Status == StatusSuspended || r.Status == StatusInactive
}

// Unconfirmed reports whether the account is said to be deleted and its data still held: the data is
// wiped when the account's host, or the absence of a DID document, confirms it.
func (r *Repo) Unconfirmed() bool { return r.Status == StatusDeleted && r.Ordinal != 0 }
