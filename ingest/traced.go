package ingest

import "cistern/trace"

// step begins the next step of the trace of the item's event, if it has one.
func (it *item) step(name string) {
	if it.e != nil {
		it.e.Trace.Step(name)
	}
}

// takeTrace takes the trace of an event that is done: the event is released before its batch is
// durable.
func (s *shard) takeTrace(it *item) {
	p := &it.e.Trace
	if !p.On() {
		return
	}
	p.Text("outcome", outcomeNames[it.outcome])
	switch it.outcome {
	case outcomeRejected:
		p.Fail(it.reason, it.check.bad)
	case outcomeDesynced, outcomeRefused, outcomeFailed:
		p.Fail(outcomeNames[it.outcome], it.check.bad)
	case outcomeSkipped:
		p.End()
		return
	}
	s.traced = append(s.traced, *p)
	*p = trace.Path{}
}

// endTraces ends the traces of a group when its batch is durable, and returns what waits for that:
// wait itself if nothing of the group is traced.
func (s *shard) endTraces(wait func() error) func() error {
	if len(s.traced) == 0 {
		return wait
	}
	traced := append([]trace.Path(nil), s.traced...)
	clear(s.traced)
	s.traced = s.traced[:0]
	for i := range traced {
		if wait == nil {
			traced[i].End()
			continue
		}
		traced[i].Step("sync")
	}
	if wait == nil {
		return nil
	}
	return func() error {
		err := wait()
		for i := range traced {
			if err != nil {
				traced[i].Fail("store", err)
			}
			traced[i].End()
		}
		return err
	}
}
