package ingest

import "sync"

// tracker knows which events of one source are still being handled (invariant 2). Its mark is the
// seq up to which all are done.
//
// An event is done either because it was skipped, or because it is in a batch. For the second, finish is called by the
// closure given to store.Batch.SetCursor, which runs while the batch gets its place in the log: another batch
// that counts the event as done comes behind this one, so a crash that loses the event loses that cursor too.
type tracker struct {
	mu sync.Mutex
}

// begin notes an event that was read. Seqs rise; one that does not is refused.
func (t *tracker) begin(seq int64) bool { panic("not written yet") }

// finish marks events as done and gives the mark, -1 before the first.
func (t *tracker) finish(seqs ...int64) (mark int64) { panic("not written yet") }

// mark is the seq up to which all events are done, -1 before the first.
func (t *tracker) mark() int64 { panic("not written yet") }

// reset forgets everything: the source starts anew elsewhere. Events of before are done with begin's old epoch
// and must not be finished any more; the caller waits for them first.
func (t *tracker) reset() { panic("not written yet") }
