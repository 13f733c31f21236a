package store

// Condition is the state of a repository as events of kind repo tell it.
type Condition uint8

const (
	// ConditionPending: its copy waits to be checked or fetched, and may be outdated meanwhile.
	ConditionPending Condition = 1 + iota
	// ConditionSynced: its copy is complete at its rev, and events of its later commits follow.
	ConditionSynced
	// ConditionFailing: the last attempt to fetch it failed, for the reason Retry.Kind.
	ConditionFailing
	// ConditionGone: its account is not active, as Status states.
	ConditionGone
	// ConditionUntracked: it is not followed.
	ConditionUntracked
)

var conditionNames = [...]string{"", "pending", "synced", "failing", "gone", "untracked"}

// String returns the word in events of kind repo.
func (c Condition) String() string { return enumName(conditionNames[:], uint8(c)) }

// told is the content of the newest event of kind repo about a repository, as its row remembers it;
// zero if it had none. Next attempts are not part of it, so that attempts that fail alike add
// nothing to the log.
type told struct {
	condition Condition
	kind      ErrorKind // of ConditionFailing
	status    Status    // of ConditionGone
}

func (r *Repo) told() told { return told{r.Told, r.ToldKind, r.ToldStatus} }

// condition returns what consumers are to know of the repository. A draining repository is synced:
// the commits that remain to be applied follow as events, like any later commit.
func (r *Repo) condition() told {
	switch {
	case r.Tracked == Untracked:
		return told{condition: ConditionUntracked}
	case r.State == StateGone || r.Status.Hidden():
		return told{condition: ConditionGone, status: r.Status}
	case r.State == StateSynced || r.State == StateDraining:
		return told{condition: ConditionSynced}
	case r.Retry.Kind != NoError:
		return told{condition: ConditionFailing, kind: r.Retry.Kind}
	}
	return told{condition: ConditionPending}
}

// news reports whether now has to be told after was. A repository that was just found is no news:
// its first result is.
func (was told) news(now told) bool {
	unheard := now.condition == ConditionPending || now.condition == ConditionUntracked
	return was != now && !(was.condition == 0 && unheard)
}

// tell adds an event of kind repo to the log if the condition of the repository is not the one that
// consumers were told last. PutRepo and DropRepo are the only callers, so that no change of a row
// is left out. The event follows the events that the batch has so far.
func (b *Batch) tell(r *Repo, now told) {
	if !r.told().news(now) {
		return
	}
	r.Told, r.ToldKind, r.ToldStatus = now.condition, now.kind, now.status
	e := entryV1{Kind: entryRepo, DID: appendDID(nil, r.DID), Rev: r.Rev, Status: now.status,
		Condition: now.condition, Reason: now.kind}
	if now.condition == ConditionFailing || now.condition == ConditionGone {
		e.Since = r.Retry.Since
		if r.State == StateResync || r.State == StateGone {
			e.Next = r.Retry.Next
		}
	}
	ev := Event{DID: r.DID}
	e.repoEvent(&ev)
	b.entries = append(b.entries, entry{entryV1: e, events: []Event{ev}})
}

// repoEvent sets the fields of an event of kind repo.
func (e *entryV1) repoEvent(ev *Event) {
	ev.Kind, ev.Rev, ev.Status = KindRepo, e.Rev, e.Status
	ev.Condition, ev.Reason, ev.Since, ev.NextLook = e.Condition, e.Reason, e.Since, e.Next
}

// conditionCheck is the part of Check about conditions.
type conditionCheck struct {
	report func(format string, args ...any)
	// differ has what the newest entry so far tells of a repository, if its row says otherwise
	differ map[string]told
}

// row compares what a row says that consumers were told with its condition.
func (c *conditionCheck) row(r *Repo) {
	if was, now := r.told(), r.condition(); was.news(now) {
		c.report("repository %s: is %+v, and consumers were told %+v", r.DID, now, was)
	}
}

// entry compares what an entry of kind repo tells with the row; r is a new one without a row.
func (c *conditionCheck) entry(e *entryV1, r *Repo) {
	is := told{e.Condition, e.Reason, e.Status}
	dropped := is.condition == ConditionUntracked && r.Told == 0 // the row may be a later one
	if is == r.told() || dropped {
		delete(c.differ, r.DID)
		return
	}
	c.differ[r.DID] = is
}

// end reports the repositories of which the newest entry does not tell what their rows say.
func (c *conditionCheck) end() error {
	for did, is := range c.differ {
		c.report("repository %s: the log tells %+v, and its row says otherwise", did, is)
	}
	return nil
}
