package maintain_test

import (
	"context"
	"testing/synctest"

	"cistern/maintain"
)

// The test's actions. Each changes the model, tells the coordinator, and lets everything settle.

func (w *world) schedule(t *modelTask) {
	w.request(t, asked)
	if err := w.c.Schedule(t.Name); err != nil {
		w.problem("schedule %s: %v", t.Name, err)
	}
}

func (w *world) await(t *modelTask) {
	ctx, leave := context.WithCancel(context.Background())
	x := &modelWaiter{task: t, leave: leave}
	w.waiters = append(w.waiters, x)
	w.request(t, x)
	c := w.c
	go func() {
		err := c.Await(ctx, t.Name)
		w.mu.Lock()
		defer w.mu.Unlock()
		x.ended, x.got = true, err
	}()
}

func (w *world) leave(x *modelWaiter) {
	if x.done {
		return
	}
	x.done, x.want = true, context.Canceled
	w.withdraw(x.task, x.task.cur, x)
	w.withdraw(x.task, x.task.next, x)
	x.leave()
}

func (w *world) cancel(t *modelTask) {
	found := t.cur != nil || t.next != nil
	if t.next != nil {
		w.cancelRun(t, t.next)
	}
	if t.cur != nil {
		w.cancelRun(t, t.cur)
	}
	got, err := w.c.Cancel(t.Name)
	if err != nil || got != found {
		w.problem("cancel %s: %t, %v; want %t", t.Name, got, err, found)
	}
}

// crash drops the coordinator and starts another one with what was saved.
func (w *world) crash() {
	w.mu.Lock()
	w.crashed = true
	w.strand()
	survivors := w.survivors()
	w.mu.Unlock()
	w.shelf.mu.Lock()
	rows := w.shelf.rows
	w.shelf.shut = true
	w.shelf.mu.Unlock()
	w.end()
	w.again(rows, survivors)
}

// restart ends the coordinator, which may be paused, and starts another one.
func (w *world) restart() {
	w.mu.Lock()
	w.crashed = true
	w.mu.Unlock()
	w.end()
	w.mu.Lock()
	for _, x := range w.waiters {
		if x.held { // it had not been told when Run ended, and is told then
			x.held = false
		}
	}
	w.strand()
	survivors := w.survivors()
	w.mu.Unlock()
	w.again(w.shelf.rows, survivors)
}

// end ends the coordinator.
func (w *world) end() {
	w.stop()
	synctest.Wait()
	w.yieldAll()
	if err := <-w.ran; err != nil {
		w.problem("run: %v", err)
	}
}

// strand has the callers that wait learn that Run has ended.
func (w *world) strand() {
	for _, x := range w.waiters {
		if !x.done {
			x.done, x.want = true, maintain.ErrStopped
		}
	}
}

// survivors leaves of the operations what survives the end of the coordinator, and returns the runs
// that have begun.
func (w *world) survivors() map[*modelTask]*modelRun {
	cur := map[*modelTask]*modelRun{}
	for _, t := range w.tasks {
		if t.cur != nil && !t.cur.cancelled {
			cur[t] = w.survivor(t.cur)
			cur[t].observers[asked] = true
		}
		if t.next != nil {
			t.next = w.survivor(t.next)
			if len(t.next.observers) == 0 {
				t.next = nil
			}
		}
	}
	return cur
}

// again starts a coordinator with the rows and the runs that survived another one.
func (w *world) again(rows map[string]maintain.Row, cur map[*modelTask]*modelRun) {
	w.mu.Lock()
	w.shelf = &shelf{rows: rows}
	w.crashed, w.paused, w.short, w.quiet = false, false, false, false
	for _, t := range w.tasks {
		t.cur = cur[t]
	}
	for _, t := range w.tasks { // what waited behind a run that is not there begins again
		if r := t.cur; r != nil && r.behind != nil {
			x := r.behind
			if !(x.cur != nil && x.cur.observers[t]) && !(x.next != nil && x.next.observers[t]) {
				r.behind = nil
			}
		}
		for _, r := range []*modelRun{t.cur, t.next} {
			if r != nil {
				r.place = 0 // the order of requests is not kept
			}
		}
	}
	w.mu.Unlock()
	w.start()
}

// survivor is what a restart leaves of a run.
func (w *world) survivor(r *modelRun) *modelRun {
	left := &modelRun{observers: map[any]bool{}, behind: r.behind, needs: r.needs}
	for o := range r.observers {
		switch o := o.(type) {
		case *modelWaiter:
			left.observers[asked] = true
		case *modelTask:
			left.observers[o] = true
		case string:
			if o == asked {
				left.observers[asked] = true
			}
		}
	}
	return left
}

// yieldAll has slow operations that were told to stop do so.
func (w *world) yieldAll() {
	for _, t := range w.tasks {
		w.answer(t, answer{yield: true})
	}
}

// answer ends the function of an operation, if it runs.
func (w *world) answer(t *modelTask, a answer) {
	w.mu.Lock()
	running := t.running && (!a.yield || t.ctx.Err() != nil)
	w.mu.Unlock()
	if running {
		t.answers <- a
		synctest.Wait()
	}
}
