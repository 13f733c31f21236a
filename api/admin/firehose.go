package admin

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"cistern/api/wire"
	"cistern/ingest/identity"
	"cistern/store"
)

// Firehose is the part of the daemon that follows sources. Every function may be called by any
// goroutine; if a function is nil, its endpoint answers that no firehose is followed.
type Firehose struct {
	// Sources returns all sources, in order of URL.
	Sources func() []Source
	// Parse returns the canonical form of a source's address, or an error that names the address
	// and the mistake.
	Parse func(url string, pds bool) (store.Source, error)
	// Add adds a source, or replaces the source with the same URL. It is durable on return.
	Add func(store.Source) error
	// Remove removes a source, which stays removed after a restart. The error is store.ErrNotFound
	// if the source is unknown.
	Remove func(url string) error
	// Forget deletes the cursor of a source, which then continues at its newest event. The error is
	// store.ErrNotFound if the source has no cursor.
	Forget func(url string) error
}

// Source is the state of a source. It has the fields of firehose.Status in the same order, so
// that a Status can be converted to a Source.
type Source struct {
	URL       string
	PDS       bool
	Named     bool // an option names the source
	Direct    bool // a PDS that is followed because relays leave out some of its accounts
	Persisted bool // added while running
	Running   bool // connected

	Failures    int // in a row
	RetryIn     time.Duration
	LastFailure SourceFailure

	Cursor, Seq        int64 // durable, and newest read
	Events, Bytes      int64
	BadFrames, Refused int64
	LastEvent          time.Time
	Lag                time.Duration
}

// SourceFailure states why a connection ended or could not be made. It is zero if there was no
// failure.
type SourceFailure = struct {
	At           time.Time
	Kind, Detail string
}

// sourceItem is a source as the operator sees it.
type sourceItem struct {
	URL       string `json:"url"`
	IsPDS     bool   `json:"is_pds"`
	Persisted bool   `json:"persisted"`
	// followed because relays leave out some of its accounts
	Direct              bool           `json:"direct,omitempty"`
	Running             bool           `json:"running"`
	Failing             bool           `json:"failing"`
	ConsecutiveFailures int            `json:"consecutive_failures"`
	RetryInSecs         float64        `json:"retry_in_secs,omitempty"`
	LastFailure         *sourceFailure `json:"last_failure,omitempty"`
	Stats               sourceStats    `json:"stats"`
}

type sourceFailure struct {
	At     string `json:"at"`
	Kind   string `json:"kind"`
	Detail string `json:"detail"`
}

type sourceStats struct {
	Cursor     int64   `json:"cursor"`
	Seq        int64   `json:"seq"`
	Events     int64   `json:"events"`
	Bytes      int64   `json:"bytes"`
	BadFrames  int64   `json:"bad_frames"`
	Refused    int64   `json:"refused"`
	LastEvent  string  `json:"last_event,omitempty"`
	LagSeconds float64 `json:"lag_seconds"`
}

func (src *Source) failing() bool { return src.Failures > 0 }

func (src *Source) item() sourceItem {
	it := sourceItem{
		URL: src.URL, IsPDS: src.PDS, Persisted: src.Persisted, Direct: src.Direct, Running: src.Running,
		Failing: src.failing(), ConsecutiveFailures: src.Failures, RetryInSecs: seconds(src.RetryIn),
		Stats: sourceStats{Cursor: src.Cursor, Seq: src.Seq, Events: src.Events, Bytes: src.Bytes,
			BadFrames: src.BadFrames, Refused: src.Refused, LastEvent: moment(src.LastEvent),
			LagSeconds: seconds(src.Lag)},
	}
	if f := src.LastFailure; !f.At.IsZero() {
		it.LastFailure = &sourceFailure{At: moment(f.At), Kind: f.Kind, Detail: f.Detail}
	}
	return it
}

// seconds rounds to milliseconds.
func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

var errNoFirehose = wire.Refuse("MethodNotImplemented", "this daemon follows no firehose")

// sources shows and changes what the firehose follows.
type sources struct{ firehose Firehose }

// list handles GET /firehose/sources.
func (s *sources) list(w http.ResponseWriter, r *http.Request) error {
	if s.firehose.Sources == nil {
		return errNoFirehose
	}
	q, err := wire.ParseQuery(r)
	if err != nil {
		return err
	}
	match, err := s.filter(q)
	if err != nil {
		return err
	}
	items := []sourceItem{}
	for _, src := range s.firehose.Sources() {
		if match(&src) {
			items = append(items, src.item())
		}
	}
	wire.WriteJSON(w, http.StatusOK, items)
	return nil
}

// filter returns a function that combines the parameters url, host, is_pds, running and failing.
func (s *sources) filter(q wire.Query) (func(*Source) bool, error) {
	var tests []func(*Source) bool
	for name, of := range map[string]func(*Source) bool{
		"is_pds":  func(src *Source) bool { return src.PDS },
		"running": func(src *Source) bool { return src.Running },
		"failing": (*Source).failing,
	} {
		if want, err := q.Bool(name); err != nil {
			return nil, err
		} else if q.Text(name) != "" {
			tests = append(tests, func(src *Source) bool { return of(src) == want })
		}
	}
	host, err := hostParameter(q)
	if err != nil {
		return nil, err
	}
	if host != "" {
		tests = append(tests, func(src *Source) bool { return identity.HostOf(src.URL) == host })
	}
	if text := q.Text("url"); text != "" {
		want, err := s.parse(text, false)
		if err != nil {
			return nil, err
		}
		tests = append(tests, func(src *Source) bool { return src.URL == want.URL })
	}
	return func(src *Source) bool {
		for _, test := range tests {
			if !test(src) {
				return false
			}
		}
		return true
	}, nil
}

func (s *sources) parse(url string, pds bool) (store.Source, error) {
	if s.firehose.Parse == nil {
		return store.Source{}, errNoFirehose
	}
	src, err := s.firehose.Parse(url, pds)
	if err != nil {
		return src, wire.Invalid("%v", err)
	}
	return src, nil
}

// sourceBody is the body of a change. A nil pointer is a missing field.
type sourceBody struct {
	URL   *string `json:"url"`
	IsPDS *bool   `json:"is_pds"`
}

// add handles POST /firehose/sources.
func (s *sources) add(w http.ResponseWriter, r *http.Request) error {
	var body sourceBody
	if err := wire.ReadObject(w, r, objectBytesMax, &body); err != nil {
		return err
	}
	if body.URL == nil {
		return wire.Invalid("the body lacks url")
	}
	src, err := s.parse(*body.URL, body.IsPDS != nil && *body.IsPDS)
	if err != nil {
		return err
	}
	if s.firehose.Add == nil || s.firehose.Sources == nil {
		return errNoFirehose
	}
	all := s.firehose.Sources()
	// to be changed
	known := slices.ContainsFunc(all, func(have Source) bool { return have.URL == src.URL })
	if n := len(all); n >= sourcesMax && !known {
		return wire.Invalid("%d sources are followed, the maximum", n)
	}
	if err := s.firehose.Add(src); err != nil {
		return err
	}
	wire.WriteJSON(w, http.StatusCreated, struct {
		URL   string `json:"url"`
		IsPDS bool   `json:"is_pds"`
	}{src.URL, src.PDS})
	return nil
}

// remove handles DELETE /firehose/sources.
func (s *sources) remove(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		URL *string `json:"url"`
	}
	if err := wire.ReadObject(w, r, objectBytesMax, &body); err != nil {
		return err
	}
	return s.drop(w, "url", body.URL, s.firehose.Remove, "no source %s is followed", staysRemoved)
}

// forget handles DELETE /firehose/cursors.
func (s *sources) forget(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Key *string `json:"key"`
	}
	if err := wire.ReadObject(w, r, objectBytesMax, &body); err != nil {
		return err
	}
	return s.drop(w, "key", body.Key, s.firehose.Forget, "source %s has no cursor", "")
}

// staysRemoved is the note for a removed source that an option names.
const staysRemoved = "an option of the daemon names this source: it stays removed after a " +
	"restart until POST adds it again"

// drop removes the item that a field of the body names. If an option names the source, the answer
// has a note.
func (s *sources) drop(
	w http.ResponseWriter, name string, value *string, do func(url string) error, missing, note string,
) error {
	if value == nil {
		return wire.Invalid("the body lacks %s", name)
	}
	src, err := s.parse(*value, false)
	if err != nil {
		return err
	}
	if do == nil {
		return errNoFirehose
	}
	named := func(have Source) bool { return have.URL == src.URL && have.Named }
	if s.firehose.Sources == nil || !slices.ContainsFunc(s.firehose.Sources(), named) {
		note = ""
	}
	err = do(src.URL)
	if errors.Is(err, store.ErrNotFound) {
		return wire.Refuse("NotFound", missing, wire.Echo(*value))
	}
	if err != nil {
		return err
	}
	wire.WriteJSON(w, http.StatusOK, struct {
		URL  string `json:"url"`
		Note string `json:"note,omitempty"`
	}{src.URL, note})
	return nil
}

// firehoseTotals summarizes all sources in /stats.
type firehoseTotals struct {
	Sources   int   `json:"sources"`
	Running   int   `json:"running"`
	Failing   int   `json:"failing"`
	Events    int64 `json:"events"`
	Bytes     int64 `json:"bytes"`
	BadFrames int64 `json:"bad_frames"`
	Refused   int64 `json:"refused"`
	// LagSeconds is the lag of the connected source that is furthest behind.
	LagSeconds float64 `json:"lag_seconds"`
}

func (s *sources) totals() *firehoseTotals {
	if s.firehose.Sources == nil {
		return nil
	}
	t := &firehoseTotals{}
	for _, src := range s.firehose.Sources() {
		t.Sources++
		t.Events += src.Events
		t.Bytes += src.Bytes
		t.BadFrames += src.BadFrames
		t.Refused += src.Refused
		if src.failing() {
			t.Failing++
		}
		if src.Running {
			t.Running++
			t.LagSeconds = max(t.LagSeconds, seconds(src.Lag))
		}
	}
	return t
}

// Lag returns the lag of the connected source that is furthest behind. ok is false if no source is
// connected.
func (h *Handlers) Lag() (lag time.Duration, ok bool) {
	t := h.sources.totals()
	if t == nil || t.Running == 0 {
		return 0, false
	}
	return time.Duration(t.LagSeconds * float64(time.Second)), true
}

// Cursor returns the durable cursor of the only source, besides sources that were added because
// relays leave out accounts. ok is false if the number of sources is not one.
func (h *Handlers) Cursor() (seq int64, ok bool) {
	if h.sources.firehose.Sources == nil {
		return 0, false
	}
	direct := func(src Source) bool { return src.Direct }
	all := slices.DeleteFunc(h.sources.firehose.Sources(), direct)
	if len(all) != 1 {
		return 0, false
	}
	return all[0].Cursor, true
}

// hostParameter returns the parameter host: a name with an optional port.
func hostParameter(q wire.Query) (string, error) {
	text := q.Text("host")
	if text == "" {
		return "", nil
	}
	return hostName(text)
}
