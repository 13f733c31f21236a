package store

import "math"

// CheckProgress is how far Check is.
type CheckProgress struct {
	// Done and Total weigh the rows that Check reads by the time that each takes. Their quotient is
	// the part of the time that has passed; the numbers mean nothing else.
	Done, Total int64
	Repos       int64  // repositories whose records are checked
	Part        string // what is checked now, such as records
}

// checkStep is a part of Check.
type checkStep struct {
	part string // for CheckProgress; "" goes on with the part before
	work int64  // nanoseconds, estimated by the counters
	run  func() error
}

// checkWork is the work of Check, done and to do.
type checkWork struct {
	progress func(CheckProgress)
	at       CheckProgress // before the step
	step     checkStep     // that runs
	worked   int64         // of its work
	// ended is called with each step and the work that it has done, which should be what was
	// estimated. It may be nil.
	ended func(step checkStep, worked int64)
}

// Nanoseconds of a processor that Check takes for a row. BenchmarkCheck measures them;
// BENCHMARKS.md has the machine and the figures. Steps without a cost take less than a hundredth of
// the time.
const (
	checkRepoCost         = 10_000
	checkOwnerCost        = 6600
	checkOwnedCost        = 47_000 // records: for each repository
	checkRecordCost       = 1900   // for each record, and each block
	checkStrayCost        = 16_000 // leftovers: for each repository
	checkCollectionCost   = 150    // in each of its two steps
	checkTotalCost        = 180    // totals: for each event
	checkTotalEntryCost   = 2900   // for each entry of the log
	checkEventCost        = 240    // events: for each event
	checkEntryCost        = 26_600 // for each entry
	checkPostingCost      = 130    // postings: for each event
	checkPostingEntryCost = 3000   // for each entry
)

// checkTellEvery is how many nanoseconds of work lie between two reports of progress.
const checkTellEvery = 1_000_000

// logSamples is how many events are looked at to estimate how many entries the log has.
const logSamples = 64

// estimateEntries estimates how many entries the log has: an entry of a commit has some events, one
// of an import thousands.
func estimateEntries(c *checker) (int64, error) {
	events := c.next - min(c.tail, c.next)
	share, samples := 0.0, min(events, logSamples)
	for i := range samples {
		at := c.tail + events/samples*i
		err := c.s.eachEntry(c.r, at, at+1, func(_ uint64, e *entryV1) error {
			share += 1 / float64(max(1, e.ids()))
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return int64(math.Round(share / float64(max(1, samples)) * float64(events))), nil
}

// take runs steps, and reports how far they are.
func (w *checkWork) take(steps []checkStep) error {
	for _, s := range steps {
		w.at.Total += s.work
	}
	for _, s := range steps {
		if s.part != "" {
			w.at.Part = s.part
		}
		w.step, w.worked = s, 0
		w.tell()
		if err := s.run(); err != nil {
			return err
		}
		if w.ended != nil {
			w.ended(s, w.worked)
		}
		w.at.Done += s.work
	}
	return nil
}

// spent adds work that the step has done.
func (w *checkWork) spent(work int64) {
	before := w.worked
	w.worked += work
	if w.worked/checkTellEvery != before/checkTellEvery {
		w.tell()
	}
}

// tell reports progress. A step that has more work than was estimated stays at its end.
func (w *checkWork) tell() {
	now := w.at
	now.Done += min(w.worked, w.step.work)
	w.progress(now)
}
