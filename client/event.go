package client

import (
	"encoding/json"
	"time"
)

// Event is an event of the log, as docs/http.md describes it.
type Event struct {
	ID       uint64
	Type     string
	Record   *Record   // of type record
	Account  *Account  // of type account
	Identity *Identity // of type identity
	Repo     *Repo     // of type repo

	JSON []byte `json:"-"` // the event as the daemon sent it
}

// Record is a change of a record.
type Record struct {
	Live             bool
	DID, Rev         string
	Collection, Rkey string
	Action           string
	Record           json.RawMessage // empty if the record was deleted or has no JSON form
	Unrepresentable  string          // why it has none
}

// Account is a change of the status of an account.
type Account struct {
	DID    string
	Active bool
	Status string
}

// Identity is a change of the handle or the host of an account.
type Identity struct {
	DID, Handle, PDS string
}

// Repo is a change of the condition of a repository.
type Repo struct {
	DID      string
	State    string    // pending, synced, failing, gone or untracked
	Rev      string    // of the daemon's copy, "" without one
	Reason   string    // why it is failing or gone
	Since    time.Time // since when; zero: unknown
	NextLook time.Time `json:"next_look"` // when its host is asked again; zero: unknown or never
}

// message is anything that a stream sends: an event, the answer to a filter, or an error.
type message struct {
	Event
	Error, Message string
}
