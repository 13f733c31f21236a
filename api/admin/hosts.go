package admin

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"cistern/api/atproto"
	"cistern/api/wire"
	"cistern/backfill/pace"
	"cistern/ingest/identity"
	"cistern/store"

	"github.com/agext/levenshtein"
)

// Hosts is the part of the daemon that sends requests to hosts. Both functions may be called by any
// goroutine.
type Hosts struct {
	// Standing returns the current state of a host. Default: no host is asked.
	Standing func(id uint32) HostStanding
	// Changed is called after the settings of a host were changed. Default: no call.
	Changed func(id uint32)
}

// HostStanding is the current state of a host, in addition to its row.
type HostStanding struct {
	pace.View
	Bytes, Repos int64     // not in the row yet
	Error        string    // newer than the error in the row, "" for none
	ErrorAt      time.Time // when that was
}

// hostItem is a host as the operator sees it.
type hostItem struct {
	Host         string        `json:"host"`
	State        string        `json:"state"`
	Accounts     int64         `json:"accounts"`
	Queued       int64         `json:"queued"`
	InFlight     int           `json:"in_flight"`
	ParkedUntil  string        `json:"parked_until,omitempty"`
	FailingSince string        `json:"failing_since,omitempty"`
	LastError    string        `json:"last_error,omitempty"`
	LastErrorAt  string        `json:"last_error_at,omitempty"`
	Bytes        int64         `json:"bytes"`
	ReposFetched int64         `json:"repos_fetched"`
	FirstSeen    string        `json:"first_seen,omitempty"`
	LastSeen     string        `json:"last_seen,omitempty"`
	Limits       limitsItem    `json:"limits"`
	Override     pace.Override `json:"override"`
}

// limitsItem are the limits of a host. A window without a limit is left out.
type limitsItem struct {
	Concurrency    int    `json:"concurrency"` // requests at a time now
	ConcurrencyMin int    `json:"concurrency_min"`
	ConcurrencyMax int    `json:"concurrency_max"`
	PerSecond      int    `json:"per_second,omitempty"`
	PerHour        int    `json:"per_hour,omitempty"`
	PerDay         int    `json:"per_day,omitempty"`
	OpensAt        string `json:"opens_at,omitempty"` // when the next request may begin, if not now

	// quotas that the host's headers state, one for each policy
	Told      []quotaItem `json:"told,omitempty"`
	LatencyMs int64       `json:"latency_ms,omitempty"`
}

type quotaItem struct {
	Limit     int    `json:"limit,omitempty"`
	Remaining int    `json:"remaining"`
	Reset     string `json:"reset"`
	Window    int64  `json:"window,omitempty"` // seconds
}

// standing returns the current state of a host.
func (o *Hosts) standing(h *store.Host) (now HostStanding) {
	if o.Standing != nil {
		return o.Standing(h.ID)
	}
	now.Banned = h.Banned
	return now
}

// hosts shows hosts, and changes their settings.
type hosts struct {
	store  *store.Store
	opts   Hosts
	logger *slog.Logger
}

func (hs *hosts) item(h *store.Host) hostItem {
	now := hs.opts.standing(h)
	it := hostItem{
		Host: h.Name, State: stateOf(h, now), Accounts: h.Accounts, Queued: h.Queued,
		InFlight: now.Running, ParkedUntil: moment(now.ParkedUntil),
		FailingSince: moment(now.FailingSince), Bytes: h.Bytes + now.Bytes,
		ReposFetched: h.Repos + now.Repos, FirstSeen: rfc3339(h.FirstSeen),
		LastSeen: rfc3339(h.LastSeen), Override: pace.Override(h.Limits),
		Limits: limitsItem{Concurrency: now.Concurrency, ConcurrencyMin: now.Limits.Min,
			ConcurrencyMax: now.Limits.Max, PerSecond: now.Limits.PerSecond,
			PerHour: now.Limits.PerHour, PerDay: now.Limits.PerDay,
			OpensAt: moment(now.Opens), LatencyMs: now.Latency.Milliseconds()},
	}
	it.LastError, it.LastErrorAt = h.Error, rfc3339(h.ErrorAt)
	if now.Error != "" {
		it.LastError, it.LastErrorAt = now.Error, moment(now.ErrorAt.Truncate(time.Second))
	}
	if it.State != now.State() {
		it.FailingSince = rfc3339(h.Failing)
	}
	for _, q := range now.Told {
		it.Limits.Told = append(it.Limits.Told, quotaItem{Limit: q.Limit, Remaining: q.Remaining,
			Reset: q.Reset.UTC().Format(time.RFC3339), Window: int64(q.Window.Seconds())})
	}
	return it
}

// stateOf returns the state of a host. One that failed before the restart of the daemon, and was
// not asked since, still fails.
func stateOf(h *store.Host, now HostStanding) string {
	if state := now.State(); state != "ok" || h.Failing == 0 || h.Failing <= h.LastSeen {
		return state
	}
	return "failing"
}

// HostStatuses returns a function that returns the status of a host as the protocol names it, by
// its state and the sources of now.
func (h *Handlers) HostStatuses() func(*store.Host) atproto.HostStatus {
	seqs := map[string]int64{}
	if h.sources.firehose.Sources != nil {
		for _, src := range h.sources.firehose.Sources() {
			seqs[identity.HostOf(src.URL)] = src.Seq
		}
	}
	return func(row *store.Host) atproto.HostStatus {
		now := h.hosts.opts.standing(row)
		_, followed := seqs[row.Name]
		s := atproto.HostStatus{Status: "idle", Seq: seqs[row.Name]}
		switch {
		case now.Banned:
			s.Status = "banned"
		case !now.FailingSince.IsZero() || row.Failing != 0 && row.Failing > row.LastSeen:
			s.Status = "offline"
		case !now.ParkedUntil.IsZero(): // the host asked for it
			s.Status = "throttled"
		case row.Accounts > 0 || followed:
			s.Status = "active"
		}
		return s
	}
}

// list handles GET /hosts.
func (hs *hosts) list(w http.ResponseWriter, r *http.Request) error {
	q, err := wire.ParseQuery(r)
	if err != nil {
		return err
	}
	limit, err := q.Limit(100, 1000)
	if err != nil {
		return err
	}
	state := q.Text("state")
	if state != "" && !slices.Contains(pace.States[:], state) {
		return wire.Invalid("state %s: want %s", wire.Echo(state), strings.Join(pace.States[:], ", "))
	}
	cursor := q.Text("cursor")
	if cursor != "" {
		if cursor, err = hostName(cursor); err != nil {
			return err
		}
	}
	items := []hostItem{}
	_, next, err := hs.store.Hosts(cursor, limit, func(h *store.Host) bool {
		it := hs.item(h)
		match := state == "" || it.State == state
		if match && len(items) < limit {
			items = append(items, it)
		}
		return match
	})
	if err != nil {
		return err
	}
	q.LinkNext(w, r.URL.Path, next)
	return wire.WriteList(w, r, items)
}

// hostName returns the canonical form of a host name.
func hostName(s string) (string, error) {
	origin, err := identity.ParseOrigin(s)
	if err != nil {
		return "", wire.Invalid("host %s: want a name as in pds.example.com, with a port if it has one",
			wire.Echo(s))
	}
	return identity.HostOf(origin), nil
}

// named returns the host in the path of a request.
func (hs *hosts) named(r *http.Request) (store.Host, error) {
	name, err := hostName(r.PathValue("host"))
	if err != nil {
		return store.Host{}, err
	}
	h, err := hs.store.HostNamed(name)
	if errors.Is(err, store.ErrNotFound) {
		nearest, err := hs.nearest(name)
		if err != nil {
			return h, err
		}
		return h, wire.Refuse("NotFound", "no host %s is known%s; 'cistern run --host-limit' and "+
			"'--host-ban' hold for hosts that are not known yet", wire.Echo(name), nearest)
	}
	return h, err
}

// nearest returns the known host whose name is most like this one, as words to append to an error,
// "" if none is like it.
func (hs *hosts) nearest(name string) (string, error) {
	var best string
	var score float64
	_, _, err := hs.store.Hosts("", 1, func(h *store.Host) bool {
		if s := levenshtein.Match(name, h.Name, nil); s > score {
			best, score = h.Name, s
		}
		return false
	})
	if err != nil || score < nearestScore {
		return "", err
	}
	return fmt.Sprintf("; did you mean %s?", wire.Echo(best)), nil
}

// nearestScore is how much a name must be like another to be meant by it: 1 is the same name, and 0
// a name without a letter in common.
const nearestScore = 0.6

// show handles GET /hosts/{host}.
func (hs *hosts) show(w http.ResponseWriter, r *http.Request) error {
	h, err := hs.named(r)
	if err != nil {
		return err
	}
	wire.WriteJSON(w, http.StatusOK, hs.item(&h))
	return nil
}

// set changes the settings of the host in the path, applies them, and answers with the host. It
// refuses a host that is unknown: its name is more likely a mistake, and the options of the daemon
// limit or ban hosts before they are known.
func (hs *hosts) set(
	w http.ResponseWriter, r *http.Request, change func(row *store.HostRow),
) error {
	h, err := hs.named(r)
	if err != nil {
		return err
	}
	name := h.Name
	var was, is store.HostRow
	id, err := hs.store.SetHost(name, func(row *store.HostRow) {
		was = *row
		change(row)
		is = *row
	})
	if err != nil {
		return err
	}
	switch log := hs.logger; {
	case is.Banned && !was.Banned:
		log.Info("host is banned: it is not asked any more", "host", name)
	case was.Banned && !is.Banned:
		log.Info("host is no longer banned", "host", name)
	case was.Limits != is.Limits:
		log.Info("the limits of a host were changed", "host", name, "limits", is.Limits)
	}
	if hs.opts.Changed != nil {
		hs.opts.Changed(id)
	}
	return hs.show(w, r)
}

// limit handles PUT /hosts/{host}/limits.
func (hs *hosts) limit(w http.ResponseWriter, r *http.Request) error {
	var limits pace.Override
	if err := wire.ReadObject(w, r, objectBytesMax, &limits); err != nil {
		return err
	}
	if err := limits.Validate(); err != nil {
		return wire.Invalid("%v", err)
	}
	return hs.set(w, r, func(row *store.HostRow) { row.Limits = store.HostLimits(limits) })
}

// unlimit handles DELETE /hosts/{host}/limits.
func (hs *hosts) unlimit(w http.ResponseWriter, r *http.Request) error {
	return hs.set(w, r, func(row *store.HostRow) { row.Limits = store.HostLimits{} })
}

// ban handles PUT /hosts/{host}/ban.
func (hs *hosts) ban(w http.ResponseWriter, r *http.Request) error {
	return hs.set(w, r, func(row *store.HostRow) { row.Banned = true })
}

// unban handles DELETE /hosts/{host}/ban.
func (hs *hosts) unban(w http.ResponseWriter, r *http.Request) error {
	return hs.set(w, r, func(row *store.HostRow) { row.Banned = false })
}
