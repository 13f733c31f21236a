package simnet

import (
	"fmt"
	"slices"
	"time"
)

// FaultKind is a way for a host to misbehave.
type FaultKind int

// The faults. Those from WrongHash on send a CAR that is wrong in one respect, or late; the others
// answer in place of the host.
const (
	// RateLimited answers 429 and says when to return (RetryAfter, RetryAs).
	RateLimited FaultKind = iota + 1
	// ServerError answers Status (default 503), with a Retry-After if RetryAfter is set.
	ServerError
	// Unavailable answers as the reference PDS does for an account it will not serve: see
	// Fault.Account.
	Unavailable
	// Hang accepts the request and never answers.
	Hang
	// Garbage answers 200 with bytes that are neither a CAR nor JSON.
	Garbage
	// Redirect answers 302 to Location (default: a link-local metadata service).
	Redirect
	// RedirectLoop answers 302 to the same URL.
	RedirectLoop
	// GzipBomb sends a gzip body of a valid CAR header and then Bytes (default 4 GiB) of valid blocks.
	GzipBomb
	// Latency waits Delay, then lets the request meet the next fault or the host.
	Latency

	// WrongHash flips one bit in a record, under its old CID.
	WrongHash
	// WrongDID sends the repository of another account.
	WrongDID
	// StaleRev sends the commit before the newest, or one signed to look an hour old.
	StaleRev
	// FutureRev sends a commit of a day after the wall clock's now.
	FutureRev
	// BadSignature has the commit signed by a key of no account.
	BadSignature
	// HighS has the commit signed by the right key with a high S.
	HighS
	// MissingRecord leaves out one record's block.
	MissingRecord
	// MissingNode leaves out one tree node.
	MissingNode
	// Truncated ends the body in order after Bytes (default half) of the CAR.
	Truncated
	// Reset breaks the connection after Bytes (default half) of the CAR.
	Reset
	// SlowDrip sends Bytes (default 16) of the CAR at a time, Delay (default 50 ms) apart.
	SlowDrip
	// Mutated sends what Mutate makes of the CAR.
	Mutated
	// Gate takes the state of the repository, waits Delay, runs Hook, and then sends what it took.
	Gate
)

// String is the name of the kind.
func (k FaultKind) String() string {
	names := [...]string{"RateLimited", "ServerError", "Unavailable", "Hang", "Garbage",
		"Redirect", "RedirectLoop", "GzipBomb", "Latency", "WrongHash", "WrongDID", "StaleRev",
		"FutureRev", "BadSignature", "HighS", "MissingRecord", "MissingNode", "Truncated", "Reset",
		"SlowDrip", "Mutated", "Gate"}
	if k < 1 || int(k) > len(names) {
		return fmt.Sprintf("FaultKind(%d)", int(k))
	}
	return names[k-1]
}

// inCAR reports whether the fault alters a CAR, rather than answering itself.
func (k FaultKind) inCAR() bool { return k >= WrongHash }

// RetryForm is how a 429 states when to return.
type RetryForm int

// The forms in use.
const (
	RetrySeconds   RetryForm = iota // Retry-After: 30
	RetryDate                       // Retry-After: Fri, 20 Nov 2026 22:45:52 GMT
	RateLimitReset                  // RateLimit-Reset: 1795214752, as the reference PDS
	RetryUnsaid                     // nothing
)

// Fault describes a misbehaviour and the requests that it affects.
type Fault struct {
	Kind FaultKind
	// DID limits the fault to requests about one account. Default all.
	DID string
	// Endpoint limits the fault to one NSID, "did" for documents, "log/audit" for their history; "*"
	// is all. Default getRepo at a PDS, all at the PLC directory and the relay; faults in a CAR meet
	// getRepo, sync.getRecord and sync.getBlocks only.
	Endpoint string
	// Count is how often it fires before it is spent. Default 0, until cleared.
	Count int
	// Status is the HTTP status of ServerError.
	Status int
	// Account is the state that Unavailable claims; Deleted, the default, is RepoNotFound.
	Account Status
	// RetryAfter and RetryAs are what RateLimited and ServerError ask for.
	RetryAfter time.Duration
	RetryAs    RetryForm
	// Delay is the wait of Latency and Gate, and SlowDrip's pace.
	Delay time.Duration
	// Bytes is the size or offset of the kind.
	Bytes int64
	// Location is where Redirect points.
	Location string
	// Mutate is Mutated's change; it may modify its argument.
	Mutate func(car []byte) []byte
	// Hook is what Gate runs, such as a commit, or a wait for a channel. Latency runs it after its
	// wait, and kinds that answer without a CAR before they do.
	Hook func()
}

// Injection is a fault in force at one host.
type Injection struct {
	host  *Host
	fault Fault
	// guarded by host.mu:
	fired int
}

// Inject puts a fault in force. Of several that match a request the earliest injected fires.
func (h *Host) Inject(f Fault) *Injection {
	if f.Endpoint == "" {
		f.Endpoint = "*"
		if h.isPDS() || f.Kind.inCAR() {
			f.Endpoint = getRepo
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	in := &Injection{host: h, fault: f}
	h.injections = append(h.injections, in)
	return in
}

// ClearFaults ends all faults of the host.
func (h *Host) ClearFaults() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.injections = nil
}

// Fired is how often the fault met a request.
func (in *Injection) Fired() int {
	in.host.mu.Lock()
	defer in.host.mu.Unlock()
	return in.fired
}

// Clear ends the fault.
func (in *Injection) Clear() {
	in.host.mu.Lock()
	defer in.host.mu.Unlock()
	in.host.injections = slices.DeleteFunc(in.host.injections,
		func(other *Injection) bool { return other == in })
}

// take returns the fault for a call, and counts it (invariant 3).
func (h *Host) take(c call) *Injection {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, in := range h.injections {
		if in.matches(c) {
			in.fired++
			return in
		}
	}
	return nil
}

func (in *Injection) matches(c call) bool {
	f := in.fault
	return (f.Count == 0 || in.fired < f.Count) &&
		(f.DID == "" || f.DID == c.did) &&
		(f.Endpoint == "*" || f.Endpoint == c.endpoint) &&
		(!f.Kind.inCAR() || sendsCAR(c.endpoint)) &&
		!slices.Contains(c.passed, in)
}
