package export

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"cistern/api/clients"
	"cistern/api/wire"
	"cistern/dump"
	"cistern/filter"
	"cistern/store"
)

// Records answers GET /export with all current records that a filter wants, as one file, or with
// whole repositories as an archive of CARs.
type Records struct {
	store    *store.Store
	exporter *Exporter
	turns    *clients.Turns // acquired by the weight of a file, until it is sent
	queue    *clients.Queue // of the processors
}

// NewRecords answers from the store, and with the processors, of others.
func NewRecords(e *Exports) (*Records, error) {
	x, err := e.exporter.uncached()
	return &Records{store: e.store, exporter: x,
		turns: clients.NewTurns(filesMax), queue: e.queue}, err
}

// request is what a client asks for.
type request struct {
	cars    bool // in place of format
	format  dump.Format
	filter  *filter.Events
	options dump.FileOptions
	resume  string // "": from the beginning
	coding  dump.Coding
	weight  int64
}

// Get answers GET /export.
func (e *Records) Get(w http.ResponseWriter, r *http.Request) error {
	if e.store.Ephemeral() {
		return wire.EventsOnly()
	}
	q, err := wire.ParseQuery(r, "collections", "dids")
	if err != nil {
		return err
	}
	asked, err := parseRequest(q, r.Header)
	if err != nil {
		return err
	}
	if err := e.turn(r.Context(), q, asked.weight); err != nil {
		return err
	}
	defer e.turns.Release(q.Client, asked.weight)
	reading, err := e.reading(asked)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", asked.media())
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Vary", "Accept-Encoding")
	h.Set("Cistern-Epoch", reading.Epoch())
	h.Set("Cistern-Head", strconv.FormatUint(reading.Head(), 10))
	if asked.coding != dump.Plain {
		h.Set("Content-Encoding", string(asked.coding))
	}
	if r.Method == http.MethodHead {
		return nil
	}
	return e.send(w, r, q.Client, asked, reading)
}

// send sends a file.
func (e *Records) send(
	w http.ResponseWriter, r *http.Request, client netip.Prefix, asked request,
	reading *dump.Reading,
) error {
	s := newStream(r.Context(), w, func() error { return nil }) // each page has what is shown then
	s.views = false
	out, err := dump.Compress(s, asked.coding)
	if err != nil {
		return err
	}
	if asked.cars {
		err = e.sendArchive(r.Context(), s, out, client, asked, reading)
	} else {
		err = e.sendRecords(r.Context(), s, out, client, asked, reading)
	}
	if err == nil {
		err = out.Close()
	}
	if err = s.end(err); s.sent == 0 {
		w.Header().Del("Content-Encoding") // the answer is a refusal
	}
	return err
}

// sendRecords sends a file of records. Each page leaves the queue of the processors when it is
// read, and again when it is written.
func (e *Records) sendRecords(
	all context.Context, s *stream, out io.Writer, client netip.Prefix, asked request,
	reading *dump.Reading,
) error {
	asked.options.Compute = func(ctx context.Context, reads bool) (func(), error) {
		slotted, leave, err := e.queue.Enter(ctx, client)
		if err != nil || reads {
			return leave, err
		}
		s.ctx = slotted // without the slot while the client reads
		return func() {
			leave()
			s.ctx = all
		}, nil
	}
	_, err := reading.WriteFile(all, out, asked.format, asked.options, nil)
	return err
}

// shown returns the error with which an archive breaks off because a copy may not be shown any
// more, nil if it may.
func (e *Records) shown(was *store.Repo) error {
	if err := shown(e.store, was); err != nil {
		return wire.Refuse("Unavailable",
			"a repository has changed while it was sent: go on from the last token")
	}
	return nil
}

// turn waits for a turn of a client.
func (e *Records) turn(ctx context.Context, q wire.Query, weight int64) error {
	ctx, cancel := context.WithTimeout(ctx, turnWait)
	defer cancel()
	if err := e.turns.Acquire(ctx, q.Client, weight); err != nil {
		return wire.Refuse("Unavailable", "too many exports are being sent")
	}
	return nil
}

func (e *Records) reading(asked request) (*dump.Reading, error) {
	if asked.resume == "" {
		return dump.Begin(e.store, asked.filter), nil
	}
	r, err := dump.Resume(e.store, asked.filter, asked.resume)
	if errors.Is(err, dump.ErrToken) {
		return nil, wire.Invalid("resume %s: %v", wire.Echo(asked.resume), err)
	}
	return r, err
}

func parseRequest(q wire.Query, h http.Header) (a request, err error) {
	name := q.Text("format")
	if name == "" {
		name = "ndjson"
	}
	if a.cars = name == "car"; !a.cars {
		if a.format, err = dump.ParseFormat(name); err != nil {
			return a, wire.Invalid("%v, car", err)
		}
	}
	a.filter, err = filter.CompileEvents(filter.EventsConfig{Collections: items(q.All("collections")),
		DIDs: items(q.All("dids"))})
	if err != nil {
		return a, wire.Invalid("%v", err)
	}
	switch include := q.Text("include"); include {
	case "":
	case "cbor":
		a.options.CBOR = true
	default:
		return a, wire.Invalid("include %s: want cbor", wire.Echo(include))
	}
	if a.cars && (a.options.CBOR || len(a.filter.Ranges()) > 0) {
		return a, wire.Invalid(
			"format car has whole repositories: it takes neither collections nor include")
	}
	if a.options.Tokens, err = q.Bool("tokens"); err != nil {
		return a, err
	}
	limit, given, err := q.Uint64("limit")
	switch {
	case err != nil:
		return a, err
	case given && (limit == 0 || limit > rowsMax):
		return a, wire.Invalid("limit %d is not an integer between 1 and %d", limit, rowsMax)
	}
	a.options.RowsMax = int64(limit)
	a.resume = q.Text("resume")
	a.weight = fileWeight
	if a.format.Coded {
		a.weight = codedWeight
	} else {
		a.coding = coding(h.Values("Accept-Encoding"))
	}
	return a, nil
}

// media returns the type of the answer.
func (a *request) media() string {
	if a.cars {
		return "application/x-tar"
	}
	return a.format.Media
}

// items splits the values of a parameter at commas.
func items(values []string) (all []string) {
	for _, v := range values {
		for item := range strings.SplitSeq(v, ",") {
			if item != "" {
				all = append(all, item)
			}
		}
	}
	return all
}

// coding returns how a client accepts a file: zstd before gzip (RFC 9110, section 12.5.3).
func coding(accepts []string) dump.Coding {
	for _, c := range []dump.Coding{dump.Zstd, dump.Gzip} {
		for _, value := range items(accepts) {
			name, weight, _ := strings.Cut(value, ";")
			if !strings.EqualFold(strings.TrimSpace(name), string(c)) {
				continue
			}
			_, digits, found := strings.Cut(weight, "=")
			if q, err := strconv.ParseFloat(strings.TrimSpace(digits), 64); !found || err == nil && q > 0 {
				return c
			}
		}
	}
	return dump.Plain
}
