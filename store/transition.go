package store

import (
	"fmt"
	"slices"
)

// The state machine of a repository. Each transition is a method of Batch that states what it
// requires of the row and what it leaves; no other code assigns Repo.State. The caller sets the
// other fields, before or after, and writes the row by PutRepo, which refuses a change of state
// that no transition makes and a row that contradicts its state. docs/architecture.md has the
// diagram.

// stateUnknown is the state of a repository without a row.
const stateUnknown State = 0

// transition leads from some states to another.
type transition struct {
	name string
	from []State
	to   State
}

var transitions = [...]transition{
	// Begin to follow and fetch the repository.
	{"Track", []State{stateUnknown, StateIdle, StateGone, StatePending}, StatePending},
	// Ask the host now.
	{"Enqueue", []State{StatePending, StateSynced, StateDraining, StateResync, StateGone},
		StatePending},
	// Ask the host later.
	{"Defer", []State{StatePending, StateSynced, StateDraining}, StateResync},
	// The copy is complete at its rev, without and with live commits buffered.
	{"Complete", []State{StatePending, StateResync, StateDraining}, StateSynced},
	{"Complete", []State{StatePending}, StateDraining},
	// The account is not active, or must stay hidden for a while.
	{"Hide", []State{stateUnknown, StatePending, StateSynced, StateDraining, StateResync,
		StateGone, StateIdle}, StateGone},
	// The repository is no longer followed. An account that is not active stays so.
	{"Untrack", []State{StatePending, StateSynced, StateDraining, StateResync, StateGone, StateIdle},
		StateIdle},
	{"Untrack", []State{StateGone}, StateGone},
}

// leads reports whether a transition leads from one state to another. An empty name means any
// transition.
func leads(name string, from, to State) bool {
	return slices.ContainsFunc(transitions[:], func(t transition) bool {
		return (name == "" || t.name == name) && t.to == to && slices.Contains(t.from, from)
	})
}

// transit makes a transition.
func (b *Batch) transit(r *Repo, name string, to State) {
	if !leads(name, r.State, to) {
		b.fail(fmt.Errorf("%s %s: the repository is %s", name, r.DID, r.State))
	}
	r.State, r.reached = to, to
}

// Track follows a repository that is not followed, for a reason, and puts it into the queue of the
// host in r.Pending, which may be unknown. A fetch in flight becomes void. The copy is kept.
func (b *Batch) Track(r *Repo, why Why, priority uint8) {
	if r.Tracked != Untracked {
		b.fail(fmt.Errorf("track %s: the repository is followed already", r.DID))
	}
	if r.Known() {
		r.Attempt++
	}
	b.DropBuffer(r)
	b.transit(r, "Track", StatePending)
	r.Tracked, r.Retry.Next = why, 0
	r.Pending.Priority = priority
}

// Enqueue begins a new attempt: the repository is pending, a fetch in flight becomes void, and the
// commits buffered for it are dropped. A repository that was pending keeps its place in the queue.
// Retry stays. The caller sets Recheck: whether the host is first asked for its rev.
func (b *Batch) Enqueue(r *Repo, priority uint8) {
	if r.Tracked == Untracked && !r.Unconfirmed() {
		b.fail(fmt.Errorf("enqueue %s: the repository is not followed", r.DID))
	}
	b.DropBuffer(r)
	if r.State != StatePending {
		r.Pending.Priority = priority
	}
	b.transit(r, "Enqueue", StatePending)
	r.Attempt++
	r.Retry.Next = 0
}

// Defer makes the repository wait until retry.Next, when its next attempt begins. retry replaces
// r.Retry.
func (b *Batch) Defer(r *Repo, retry Retry) {
	b.DropBuffer(r)
	if r.State != StatePending {
		r.Attempt++ // Defer ends the attempt
	}
	b.transit(r, "Defer", StateResync)
	r.Retry, r.Pending.Priority = retry, PriorityRetry
}

// Complete ends an attempt or a wait: the copy is complete at r.Rev. The repository is synced, or
// draining while it has buffered live commits. Retry is reset.
func (b *Batch) Complete(r *Repo) {
	to := StateSynced
	if now, _ := b.buffered(r.DID); now.commits > 0 {
		to = StateDraining
	}
	b.transit(r, "Complete", to)
	r.Retry, r.Missing, r.Recheck = Retry{}, 0, false
	r.Pending.Priority = PriorityRetry
}

// Hide gives an account a status that hides it, as origin states, and takes its repository out of
// the queue. The data stays. If the status changes, it adds an account event. The account's host is
// asked again at retry.Next, 0 for never; if a copy is held, it is first asked for its rev only.
func (b *Batch) Hide(r *Repo, status Status, origin Origin, retry Retry) {
	b.DropBuffer(r)
	b.transit(r, "Hide", StateGone)
	changed := r.Status != status
	r.Attempt++
	r.Status, r.Origin, r.Recheck = status, origin, r.Ordinal != 0
	r.Retry, r.Pending.Priority = retry, PriorityRetry
	if changed {
		b.Account(r)
	}
}

// Show makes an account active, as its host states. If the status changes, it adds an account
// event. The state of the repository stays. The source of the newest #account is forgotten: its
// clock may be ahead of the host's, whose next #account must count.
func (b *Batch) Show(r *Repo) {
	if r.Mark == MarkReturning {
		r.Mark = MarkNone
	}
	r.Origin = OriginHost
	if r.Status != StatusActive {
		r.Status = StatusActive
		// The source that hid the account may withhold its events until it says active too.
		r.Withheld = r.Withheld || r.AccountSource != 0
		b.Account(r)
	}
	r.AccountSource = 0
}

// Untrack stops following a repository. The copy is kept. An inactive account stays hidden, but its
// host is not asked again.
func (b *Batch) Untrack(r *Repo) {
	b.DropBuffer(r)
	to := StateIdle
	if r.State == StateGone && r.Status.Hidden() {
		to = StateGone
	}
	b.transit(r, "Untrack", to)
	r.Attempt++
	r.Tracked, r.Retry.Next = Untracked, 0
}

// contradiction describes how the row contradicts its state, "" if it does not.
func (r *Repo) contradiction() string {
	switch r.State {
	case StatePending:
		if r.Retry.Next != 0 {
			return "is pending and has a time for its next attempt"
		}
	case StateSynced, StateDraining:
		switch {
		case r.Ordinal == 0:
			return "is complete and has no data"
		case r.Tracked == Untracked:
			return "is complete and not followed"
		case r.Retry.Next != 0:
			return "is complete and has a time for its next attempt"
		}
	case StateResync:
		if r.Retry.Next == 0 {
			return "waits for its next attempt and has no time for it"
		}
	case StateIdle:
		switch {
		case r.Tracked != Untracked:
			return "is idle and followed"
		case r.Retry.Next != 0:
			return "is idle and has a time for its next attempt"
		}
	case StateGone:
	default:
		return "is in no state"
	}
	return ""
}

// checkTransition fails the batch if no transition leaves such a row.
func (b *Batch) checkTransition(r *Repo) {
	from := r.loaded.state
	if r.reached != stateUnknown {
		from = r.reached
	}
	if from != r.State && !leads("", from, r.State) {
		b.fail(fmt.Errorf("write %s: no transition leads from %s to %s", r.DID, from, r.State))
	}
	if c := r.contradiction(); c != "" {
		b.fail(fmt.Errorf("write %s: the row %s", r.DID, c))
	}
}
