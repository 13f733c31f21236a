package copies

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// rowsMax bounds the destinations of one kind: all rows take at most 2 × 16 × 4 KiB. Each export
// usually has a new destination.
const rowsMax = 16

// The errors of copies whose commands reported no result.
const (
	// Gone means that the connection of the command ended: it was killed, or its machine failed.
	Gone = "the command ended without a result"
	// Stopped means that the daemon ended first. The command cannot complete without the checkpoint.
	Stopped = "the daemon ended before the command reported a result"
)

// ErrUnknown means that no copy of an id is under way.
var ErrUnknown = errors.New("no such copy is under way")

// Options are the options of New.
type Options struct {
	// Keeper keeps the results. Default: they are lost with the process.
	Keeper Keeper
	// Logger. Default: discard.
	Logger *slog.Logger
	// Registerer takes the metrics. Default: a private registry.
	Registerer prometheus.Registerer
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Registry keeps the copies that are under way, and the last result of each kind and destination.
type Registry struct {
	opts Options

	// held while rows are saved, so that the last write has the last state; before mu
	saving sync.Mutex

	// mu guards:
	mu       sync.Mutex
	rows     []*Row
	open     map[string]*loan // by id
	failures map[Kind]int     // since the process started
}

// loan is a copy that is under way.
type loan struct {
	row   *Row
	began time.Time
}

// Status is a row, and how many copies are under way.
type Status struct {
	Row
	Running int
}

// New returns a registry with the results that are kept.
func New(o Options) (*Registry, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	r := &Registry{opts: o, open: map[string]*loan{}, failures: map[Kind]int{}}
	if o.Keeper != nil {
		rows, err := o.Keeper.Load()
		if err != nil {
			return nil, fmt.Errorf("results of copies: %w", err)
		}
		for i := range rows {
			r.rows = append(r.rows, resumed(rows[i]))
		}
	}
	return r, o.Registerer.Register(newMetrics(r.state))
}

// resumed returns a row that was kept. A copy that was under way has failed, at an unknown time
// after it began.
func resumed(row Row) *Row {
	if began := row.Began; !began.IsZero() {
		row.Began = time.Time{}
		row.result(Result{Error: Stopped}, began, began)
	}
	return &row
}

// Begin records that a command copies a checkpoint. The statement must be valid. The caller calls
// End with the id when the command is gone.
func (r *Registry) Begin(s Statement) (id string) {
	id = rand.Text()
	now := r.opts.Now()
	r.mu.Lock()
	row := r.row(s)
	r.open[id] = &loan{row, now}
	r.refresh(row)
	r.mu.Unlock()
	if err := r.save(); err != nil {
		r.opts.Logger.Warn("the beginning of a copy was not saved; if the daemon restarts, it is lost",
			"kind", string(s.Kind), "destination", s.Destination, "err", err)
	}
	return id
}

// row returns the row of a statement, and adds it if it is missing. If its kind already has rowsMax
// rows, it removes the least recently used row without a copy under way. The caller holds mu.
func (r *Registry) row(s Statement) *Row {
	var oldest *Row
	same := 0
	for _, row := range r.rows {
		if row.Statement == s {
			return row
		}
		if row.Kind != s.Kind {
			continue
		}
		same++
		if row.Began.IsZero() && (oldest == nil || row.used().Before(oldest.used())) {
			oldest = row
		}
	}
	if same >= rowsMax && oldest != nil {
		r.rows = slices.DeleteFunc(r.rows, func(row *Row) bool { return row == oldest })
	}
	added := &Row{Statement: s}
	r.rows = append(r.rows, added)
	return added
}

// refresh sets since when copies of a row are under way. The caller holds mu.
func (r *Registry) refresh(row *Row) {
	row.Began = time.Time{}
	for _, l := range r.open {
		if l.row == row && (row.Began.IsZero() || l.began.Before(row.Began)) {
			row.Began = l.began
		}
	}
}

// Report records the result of a copy, which must be valid, and returns when it is durable. It
// returns ErrUnknown if no copy of this id is under way. After another error the result is shown,
// and may be lost by a restart.
func (r *Registry) Report(id string, res Result) error {
	s, err := r.end(id, res)
	if err != nil {
		return err
	}
	if err := r.save(); err != nil {
		return fmt.Errorf("save the result of the %s to %s: %w", s.Kind, s.Destination, err)
	}
	return nil
}

// End records that the command of a copy is gone. cause is the error of a copy that has no result.
func (r *Registry) End(id, cause string) {
	s, err := r.end(id, Result{Error: cause})
	if err != nil {
		return // it has a result
	}
	r.opts.Logger.Warn("a copy of the store ended without a result", "kind", string(s.Kind),
		"destination", s.Destination, "cause", cause)
	if err := r.save(); err != nil {
		r.opts.Logger.Warn("the end of a copy was not saved; a restart may show another error for it",
			"kind", string(s.Kind), "destination", s.Destination, "err", err)
	}
}

// end ends a copy that is under way.
func (r *Registry) end(id string, res Result) (Statement, error) {
	now := r.opts.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.open[id]
	if l == nil {
		return Statement{}, ErrUnknown
	}
	delete(r.open, id)
	l.row.result(res, l.began, now)
	r.refresh(l.row)
	if res.Error != "" {
		r.failures[l.row.Kind]++
	}
	return l.row.Statement, nil
}

// save writes all rows as they are.
func (r *Registry) save() error {
	if r.opts.Keeper == nil {
		return nil
	}
	r.saving.Lock()
	defer r.saving.Unlock()
	r.mu.Lock()
	rows := make([]Row, 0, len(r.rows))
	for _, row := range r.rows {
		rows = append(rows, *row)
	}
	r.mu.Unlock()
	return r.opts.Keeper.Save(rows)
}

// View returns all rows: backups before exports, and within a kind the most recently used first.
func (r *Registry) View() []Status {
	all, _ := r.state()
	return all
}

// state returns all rows, and the failures since the process started.
func (r *Registry) state() (all []Status, failures map[Kind]int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range r.rows {
		s := Status{Row: *row}
		for _, l := range r.open {
			if l.row == row {
				s.Running++
			}
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b Status) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), b.used().Compare(a.used()),
			cmp.Compare(a.Destination, b.Destination))
	})
	failures = map[Kind]int{}
	for _, kind := range kinds {
		failures[kind] = r.failures[kind]
	}
	return all, failures
}
