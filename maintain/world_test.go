package maintain_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"cistern/maintain"
)

// shelf is a Keeper in memory. After it is shut, what is saved is lost.
type shelf struct {
	mu   sync.Mutex
	rows map[string]maintain.Row
	log  []map[string]maintain.Row // after each Save
	shut bool
	fail error
}

func (s *shelf) Load() ([]maintain.Row, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.rows)), s.fail
}

func (s *shelf) Save(row maintain.Row) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shut || s.fail != nil {
		return s.fail
	}
	rows := maps.Clone(s.rows)
	if rows == nil {
		rows = map[string]maintain.Row{}
	}
	rows[row.Name] = row
	s.rows, s.log = rows, append(s.log, rows)
	return nil
}

// world has a coordinator, whose operations do what the test says, beside the model that it must
// agree with. The test changes the model before it tells the coordinator, and compares the two when
// everything in the bubble has come to rest.
type world struct {
	ops      []maintain.Operation
	together []maintain.Pair
	shelf    *shelf
	c        *maintain.Coordinator
	stop     context.CancelFunc
	ran      chan error

	mu       sync.Mutex
	tasks    map[string]*modelTask
	places   int
	paused   bool
	quiet    bool // paused, and nothing ran when everything was at rest
	short    bool
	reliefAt time.Time // when operations that free space are requested again
	crashed  bool
	free     bool // operations succeed at once
	waiters  []*modelWaiter
	problems []string
	begun    int
}

// modelTask is an operation in the model.
type modelTask struct {
	maintain.Operation
	slow      bool // it stops only when the test says so
	cur, next *modelRun
	running   bool
	ctx       context.Context
	told      bool // to stop, rightly
	answers   chan answer
}

type modelRun struct {
	place     int
	observers map[any]bool // asked, due, a *modelWaiter or the *modelTask that needs it
	behind    *modelTask
	needs     int
	cancelled bool
}

const (
	asked = "asked"
	due   = "due"
)

type modelWaiter struct {
	task  *modelTask
	leave context.CancelFunc
	done  bool // the model says that it is released, with want
	held  bool // but not before the end of a pause
	want  error
	ended bool
	got   error
}

// answer ends a function of an operation. One that yields returns the error of its context.
type answer struct {
	err   error
	yield bool
}

// errLoop stands for any reason to refuse that an operation waits for another one.
var errLoop = errors.New("LOOP")

func newWorld(ops []maintain.Operation, together []maintain.Pair, slow map[string]bool) *world {
	w := &world{ops: slices.Clone(ops), together: together, shelf: &shelf{}, tasks: map[string]*modelTask{}}
	for i, op := range w.ops {
		task := &modelTask{Operation: op, slow: slow[op.Name], answers: make(chan answer)}
		w.tasks[op.Name] = task
		w.ops[i].Run = func(ctx context.Context, _ *maintain.Progress) error { return w.run(ctx, task) }
	}
	w.start()
	return w
}

func (w *world) start() {
	c, err := maintain.New(maintain.Options{Operations: w.ops, Together: w.together, Keeper: w.shelf, Location: time.UTC})
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w.c, w.stop, w.ran = c, stop, make(chan error, 1)
	go func() { w.ran <- c.Run(ctx) }()
	synctest.Wait()
}

func (w *world) problem(format string, args ...any) {
	w.problems = append(w.problems, fmt.Sprintf(format, args...))
}

// run is what every operation does: it ends as the test says, or because ctx ends.
func (w *world) run(ctx context.Context, t *modelTask) error {
	w.mu.Lock()
	w.begin(t, ctx)
	a, free := answer{}, w.free
	w.mu.Unlock()
	if !free {
		stopped := ctx.Done()
		if t.slow {
			stopped = nil
		}
		select {
		case a = <-t.answers:
		case <-stopped:
			a = answer{yield: true}
		}
	}
	if a.yield {
		a.err = ctx.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.returned(t, a.err)
	return a.err
}

func (w *world) excludes(a, b *modelTask) bool {
	return !slices.Contains(w.together, maintain.Pair{a.Name, b.Name}) && !slices.Contains(w.together, maintain.Pair{b.Name, a.Name})
}

// pending returns what may begin next of t, unless it runs or waits behind another operation.
func (t *modelTask) pending() *modelRun {
	switch {
	case t.running:
		return nil
	case t.cur == nil:
		return t.next
	case t.cur.behind != nil:
		return nil
	default:
		return t.cur
	}
}

func (t *modelTask) neededBy() (all []*modelTask) {
	for _, r := range []*modelRun{t.cur, t.next} {
		if r != nil {
			for o := range r.observers {
				if d, ok := o.(*modelTask); ok {
					all = append(all, d)
				}
			}
		}
	}
	return all
}

// serves reports whether t is u or is needed by it, over any number of operations.
func (t *modelTask) serves(u *modelTask) bool {
	return t == u || slices.ContainsFunc(t.neededBy(), func(d *modelTask) bool { return d.serves(u) })
}

// begin checks that t may begin now. Called with mu held, as the others below.
func (w *world) begin(t *modelTask, ctx context.Context) {
	w.begun++
	if t.running {
		w.problem("%s runs twice", t.Name)
	}
	if w.paused {
		w.problem("%s begins while paused", t.Name)
	}
	if t.cur == nil {
		t.cur, t.next = t.next, nil
	}
	if t.cur == nil {
		w.problem("%s begins without a request", t.Name)
		t.cur = w.newRun(due)
	}
	if t.cur.behind != nil {
		w.problem("%s begins, but needs %s first", t.Name, t.cur.behind.Name)
	}
	if len(t.cur.observers) == 0 || t.cur.cancelled {
		w.problem("%s begins without an observer", t.Name)
	}
	freeing := w.short && t.Space == maintain.Frees
	if w.short && t.Space == maintain.Consumes {
		w.problem("%s begins while the disk is short", t.Name)
	}
	for _, u := range w.tasks {
		if u.running && w.excludes(t, u) {
			w.problem("%s begins beside %s", t.Name, u.Name)
		}
		if u.Alone && len(u.neededBy()) > 0 && !w.urgent(t) && !freeing {
			w.problem("%s begins while %s is needed, which runs alone", t.Name, u.Name)
		}
		p := u.pending()
		if u == t || p == nil || !w.excludes(t, u) {
			continue
		}
		if w.short && u.Space == maintain.Frees && !freeing {
			w.problem("%s begins before %s, which frees space", t.Name, u.Name)
		}
		if !w.free && !w.short && p.place < t.cur.place && !w.urgent(t) {
			w.problem("%s begins before %s, which was requested before", t.Name, u.Name)
		}
	}
	t.running, t.ctx, t.told = true, ctx, false
}

// urgent reports whether t is needed and runs alone, or is needed by such an operation.
func (w *world) urgent(t *modelTask) bool {
	for _, u := range w.tasks {
		if u.Alone && len(u.neededBy()) > 0 && t.serves(u) {
			return true
		}
	}
	return false
}

func (w *world) returned(t *modelTask, err error) {
	r := t.cur
	t.running = false
	switch {
	case errors.Is(err, context.Canceled):
		if !t.told && !w.mustStop(t) {
			w.problem("%s was told to stop without a reason", t.Name)
		}
		if r.cancelled {
			w.resolve(t, r, maintain.ErrCancelled)
		}
	case err != nil && strings.HasSuffix(err.Error(), " is needed first"):
		name, _, _ := strings.Cut(err.Error(), " ")
		if r.cancelled {
			w.resolve(t, r, maintain.ErrCancelled)
			return
		}
		u := w.tasks[name]
		r.needs++
		if u == nil || w.waitsFor(u, t) || r.needs > 8 {
			w.resolve(t, r, &maintain.NeedError{Operation: t.Name, Needs: name, Err: errLoop})
			return
		}
		n := w.request(u, t)
		n.place = min(n.place, r.place)
		r.behind = u
	default:
		w.resolve(t, r, err)
	}
}

// waitsFor reports whether a new run of t cannot begin before the current run of u has ended.
func (w *world) waitsFor(t, u *modelTask) bool {
	return t == u || t.cur != nil && t.cur.behind != nil && w.waitsFor(t.cur.behind, u)
}

// mustStop reports whether t, which runs, has to be told to stop.
func (w *world) mustStop(t *modelTask) bool {
	return t.cur.cancelled || w.paused || w.crashed || w.short && t.Space == maintain.Consumes || w.hinders(t)
}

// hinders reports whether t prevents an operation from freeing space.
func (w *world) hinders(t *modelTask) bool {
	for _, u := range w.tasks {
		if w.short && t.Space != maintain.Frees && u.Space == maintain.Frees && u.pending() != nil && w.excludes(t, u) {
			return true
		}
	}
	return false
}

func (w *world) newRun(observer any) *modelRun {
	w.places++
	return &modelRun{place: w.places, observers: map[any]bool{observer: true}}
}

func (w *world) request(t *modelTask, observer any) *modelRun {
	if t.next == nil {
		t.next = w.newRun(observer)
	}
	t.next.observers[observer] = true
	return t.next
}

// relieve requests what frees space, as the coordinator does while the disk is short.
func (w *world) relieve() {
	for _, op := range w.ops {
		t := w.tasks[op.Name]
		if t.Space == maintain.Frees && t.cur == nil && t.next == nil {
			w.request(t, due)
		}
	}
	w.reliefAt = time.Now().Add(time.Minute)
}

// resolve ends a run: its waiters are to have the result, and what waits behind it goes on or fails.
func (w *world) resolve(t *modelTask, r *modelRun, err error) {
	if r == t.cur {
		t.cur = nil
	} else {
		t.next = nil
	}
	if x := r.behind; x != nil {
		r.behind = nil
		for _, other := range []*modelRun{x.cur, x.next} {
			w.withdraw(x, other, t)
		}
	}
	for o := range r.observers {
		switch o := o.(type) {
		case *modelWaiter:
			o.done, o.want, o.held = true, err, w.quiet
		case *modelTask:
			o.cur.behind = nil
			if err != nil {
				w.resolve(o, o.cur, &maintain.NeedError{Operation: o.Name, Needs: t.Name, Err: err})
			}
		}
	}
}

// withdraw takes an observer from a run, which is cancelled if it was the last one.
func (w *world) withdraw(t *modelTask, r *modelRun, observer any) {
	if r == nil || !r.observers[observer] {
		return
	}
	delete(r.observers, observer)
	if len(r.observers) == 0 {
		w.cancelRun(t, r)
	}
}

func (w *world) cancelRun(t *modelTask, r *modelRun) {
	if r == t.cur && t.running {
		r.cancelled = true
		return
	}
	w.resolve(t, r, maintain.ErrCancelled)
}

// compare checks what must hold when everything has come to rest.
func (w *world) compare() {
	synctest.Wait()
	view := w.c.View()
	w.mu.Lock()
	defer w.mu.Unlock()
	idle, owed := true, ""
	for i, s := range view.Operations {
		t := w.tasks[w.ops[i].Name]
		if t.running {
			idle = false
			stopped := t.ctx.Err() != nil
			if w.mustStop(t) && !stopped {
				w.problem("%s is not told to stop", t.Name)
			}
			if stopped && !t.told && !w.mustStop(t) {
				w.problem("%s is told to stop without a reason", t.Name)
			}
			t.told = t.told || stopped
		}
		if t.pending() != nil && !w.paused && !w.short {
			owed = t.Name
		}
		want := t.condition()
		if s.Name != t.Name || s.Condition != want {
			w.problem("%s is %s, want %s", t.Name, s.Condition, want)
		}
		if len(s.NeededBy) != len(t.neededBy()) {
			w.problem("%s is needed by %q, want %d operations", t.Name, s.NeededBy, len(t.neededBy()))
		}
	}
	if idle && owed != "" {
		w.problem("nothing runs, but %s is requested", owed)
	}
	w.quiet = w.paused && idle
	for i, x := range w.waiters {
		x.held = x.held && w.quiet
		switch {
		case (x.done && !x.held) != x.ended:
			w.problem("waiter %d of %s has ended: %t with %v; want %t with %v", i, x.task.Name, x.ended, x.got, x.done && !x.held, x.want)
		case x.ended && !same(x.got, x.want):
			w.problem("waiter %d of %s got %v, want %v", i, x.task.Name, x.got, x.want)
		}
	}
}

func (t *modelTask) condition() maintain.Condition {
	switch {
	case t.running && t.ctx.Err() != nil:
		return maintain.Stopping
	case t.running:
		return maintain.Running
	case t.cur != nil:
		return maintain.Interrupted
	case t.next != nil:
		return maintain.Pending
	default:
		return maintain.Idle
	}
}

func same(got, want error) bool {
	if got == nil || want == nil {
		return got == want
	}
	prefix, _, _ := strings.Cut(want.Error(), errLoop.Error())
	return strings.HasPrefix(got.Error(), prefix) && (prefix != want.Error() || got.Error() == want.Error())
}

// finish lets all operations succeed. Then everything that was requested must run and end.
func (w *world) finish() {
	w.do(step{verb: "resume"})
	synctest.Wait()
	w.do(step{verb: "enough"})
	synctest.Wait()
	w.mu.Lock()
	w.free = true
	w.mu.Unlock()
	for range 4 * len(w.tasks) {
		for _, t := range w.tasks {
			w.answer(t, answer{})
		}
	}
	w.compare()
	w.mu.Lock()
	for _, t := range w.tasks {
		if t.cur != nil || t.next != nil {
			w.problem("%s never ended", t.Name)
		}
	}
	for i, x := range w.waiters {
		if !x.ended {
			w.problem("waiter %d of %s was lost", i, x.task.Name)
		}
	}
	w.mu.Unlock()
	for _, s := range w.c.View().Operations {
		if s.Condition != maintain.Idle {
			w.problem("%s is %s in the end: %s", s.Name, s.Condition, s.Waits)
		}
	}
	w.close()
}

func (w *world) close() {
	w.stop()
	synctest.Wait()
	w.yieldAll()
	if err := <-w.ran; err != nil {
		w.problem("run: %v", err)
	}
	for _, x := range w.waiters {
		x.leave()
	}
	synctest.Wait()
}
