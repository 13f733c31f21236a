package maintain_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cistern/maintain"

	"pgregory.net/rapid"
)

// operations are of every kind.
var operations = []maintain.Operation{
	{Name: "prune", Space: maintain.Frees},
	{Name: "offload", Space: maintain.Frees},
	{Name: "reconcile", Alone: true},
	{Name: "checkpoint", Alone: true, Space: maintain.Consumes},
	{Name: "backup", Space: maintain.Consumes},
	{Name: "verify"},
}

// pairs are those that a table may have.
func pairs() (all []maintain.Pair) {
	for i, a := range operations {
		for _, b := range operations[:i] {
			if !a.Alone && !b.Alone {
				all = append(all, maintain.Pair{a.Name, b.Name})
			}
		}
	}
	return all
}

// step is one action of a script.
type step struct {
	verb      string
	op, other string
	n         int
}

func drawScript(t *rapid.T) []step {
	names := make([]string, len(operations))
	for i, op := range operations {
		names[i] = op.Name
	}
	verbs := []string{"schedule", "schedule", "await", "await", "await", "leave", "leave", "cancel", "succeed",
		"succeed", "succeed", "fail", "need", "need", "need", "yield", "yield", "short", "enough", "pause", "resume", "resume",
		"crash", "restart", "sleep"}
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		return step{rapid.SampledFrom(verbs).Draw(t, "verb"), rapid.SampledFrom(names).Draw(t, "op"),
			rapid.SampledFrom(names).Draw(t, "other"), rapid.IntRange(0, 99).Draw(t, "n")}
	}), 1, 200).Draw(t, "script")
}

// pick returns the operation that an answer is for: one that runs, if any does.
func (w *world) pick(s step) *modelTask {
	var running []*modelTask
	for _, op := range w.ops {
		if t := w.tasks[op.Name]; t.running {
			running = append(running, t)
		}
	}
	if len(running) == 0 {
		return w.tasks[s.op]
	}
	return running[s.n%len(running)]
}

// do performs a step.
func (w *world) do(s step) {
	t := w.tasks[s.op]
	locked := func(f func()) {
		w.mu.Lock()
		f()
		w.mu.Unlock()
	}
	switch s.verb {
	case "schedule":
		locked(func() { w.schedule(t) })
	case "await":
		locked(func() { w.await(t) })
	case "leave":
		waiting := slices.DeleteFunc(slices.Clone(w.waiters), func(x *modelWaiter) bool { return x.done })
		if len(waiting) > 0 {
			locked(func() { w.leave(waiting[s.n%len(waiting)]) })
		}
	case "cancel":
		locked(func() { w.cancel(t) })
	case "succeed":
		w.answer(w.pick(s), answer{})
	case "fail":
		w.answer(w.pick(s), answer{err: fmt.Errorf("failure %d", w.begun)})
	case "need":
		w.answer(w.pick(s), answer{err: maintain.Needs(s.other)})
	case "yield":
		w.answer(w.pick(s), answer{yield: true})
	case "short":
		locked(func() {
			if !w.short {
				w.short = true
				w.relieve()
			}
		})
		w.c.SetDisk("3 GiB free")
	case "enough":
		locked(func() { w.short = false })
		w.c.SetDisk("")
	case "pause":
		locked(func() { w.paused = true })
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // do not wait
		w.c.Pause(ctx, "a test")
	case "resume":
		locked(func() { w.paused = false })
		w.c.Resume()
	case "crash":
		locked(func() { w.paused = false })
		w.c.Resume() // so that all is saved
		synctest.Wait()
		w.crash()
	case "restart":
		w.restart()
	case "sleep":
		d := time.Duration(s.n) * 3 * time.Second
		for w.short && !time.Now().Add(d).Before(w.reliefAt) { // nothing ends meanwhile
			first := time.Until(w.reliefAt)
			locked(w.relieve)
			w.reliefAt = w.reliefAt.Add(first)
			time.Sleep(first)
			synctest.Wait()
			d -= first
		}
		time.Sleep(d)
	}
}

// TestModel: whatever is requested, cancelled, needed, fails and crashes, the coordinator does what
// the model says, and everything that was requested runs in the end (invariants 1 to 7 and 9).
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		script := drawScript(rt)
		together := rapid.SliceOfNDistinct(rapid.SampledFrom(pairs()), 0, -1, rapid.ID).Draw(rt, "together")
		slow := map[string]bool{}
		for _, op := range operations {
			slow[op.Name] = rapid.Bool().Draw(rt, "slow "+op.Name)
		}
		var problems []string
		synctest.Test(t, func(*testing.T) {
			w := newWorld(operations, together, slow)
			for i, s := range script {
				w.do(s)
				w.compare()
				if len(w.problems) > 0 {
					w.problem("after step %d, %+v", i, s)
					break
				}
			}
			w.finish()
			problems = w.problems
		})
		if len(problems) > 0 {
			rt.Fatalf("%s\nscript %+v", strings.Join(problems, "\n"), script)
		}
	})
}

// TestNothingElseBegins: not while an operation is needed that runs alone, nor while that one waits
// for another operation, which others might run beside (invariant 5).
func TestNothingElseBegins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(operations, []maintain.Pair{{"verify", "prune"}}, nil)
		for _, s := range []step{
			{verb: "await", op: "backup"},
			{verb: "need", op: "backup", other: "checkpoint"},
			{verb: "need", op: "checkpoint", other: "verify"},
			{verb: "schedule", op: "prune"},
		} {
			w.do(s)
			w.compare()
		}
		if v := w.c.View(); v.Operations[0].Waits != "an operation is needed that runs alone" || v.Operations[5].Condition != maintain.Running {
			t.Errorf("%+v", v)
		}
		w.finish()
		if len(w.problems) > 0 {
			t.Error(strings.Join(w.problems, "\n"))
		}
	})
}

// TestEveryCrash: from the rows of any moment, every operation that had begun or was requested runs.
func TestEveryCrash(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		script := drawScript(rt)
		var problems []string
		synctest.Test(t, func(*testing.T) {
			w := newWorld(operations, nil, nil)
			for _, s := range script {
				if s.verb != "crash" && s.verb != "restart" {
					w.do(s)
					synctest.Wait()
				}
			}
			w.finish()
			for _, rows := range w.shelf.log {
				after := &world{ops: w.ops, shelf: &shelf{rows: rows}}
				ran := map[string]bool{}
				after.ops = nil
				for _, op := range operations {
					op.Run = func(context.Context, *maintain.Progress) error {
						after.mu.Lock()
						ran[op.Name] = true
						after.mu.Unlock()
						return nil
					}
					after.ops = append(after.ops, op)
				}
				after.start()
				after.close()
				for name, row := range rows {
					if (row.Began || row.Next) != ran[name] && !(ran[name] && len(row.Waiting) > 0) {
						problems = append(problems, fmt.Sprintf("%+v: ran: %t", row, ran[name]))
					}
					if now := after.shelf.rows[name]; now.Began || now.Next || len(now.Behind)+len(now.Waiting) > 0 {
						problems = append(problems, fmt.Sprintf("%+v became %+v", row, now))
					}
				}
			}
		})
		if len(problems) > 0 {
			rt.Fatalf("%s\nscript %+v", strings.Join(problems, "\n"), script)
		}
	})
}
