package admin

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"cistern/alert"
	"cistern/api/durable"
	"cistern/api/statuspage"
	"cistern/api/wire"
	"cistern/backfill/pace"
	"cistern/chart"
	"cistern/ingest/identity"
	"cistern/logbook"
	"cistern/store"
	"cistern/verdict"
)

// Disk is the disk of the store.
type Disk struct {
	Free, Total uint64 // bytes
	Reserve     uint64 // bytes that must stay free
}

// FreeSeries is the series of Options.Charts from which the end of the disk is forecast.
const FreeSeries = "disk_free"

// overview answers GET /overview: all that one refresh of a dashboard needs. It reads counters and
// tables that are in memory, and never the rows of repositories or records.
type overview struct {
	stats       *stats
	sources     *sources
	hosts       paced[hostSummary]
	registry    *durable.Registry
	maintenance *maintenance
	copies      copyRoutes
	conditions  conditions
	alerts      func() []alert.Subject
	charts      *chart.Recorder // nil: none are kept
	journal     *logbook.Book   // nil: no lines are kept
	disk        func() (Disk, error)
	crawler     Crawler
	ignored     func() []verdict.Ignored
	started     time.Time
	token       bool // the listener has a token, so that readers have sessions
}

// overviewBody is the answer of GET /overview.
type overviewBody struct {
	Time    string `json:"time"`
	Started string `json:"started"`
	Version string `json:"version"`
	// Verdict says whether the daemon needs an operator.
	Verdict verdict.Verdict `json:"verdict"`
	// Login means that the reader may have a session, which can be ended.
	Login         bool                 `json:"login"`
	Stats         statistics           `json:"stats"`
	Disk          *diskItem            `json:"disk,omitempty"`
	Sources       listed[sourceItem]   `json:"sources"`
	Hosts         hostSummary          `json:"hosts"`
	Subscriptions []subscriptionItem   `json:"subscriptions"`
	Maintenance   maintenanceItem      `json:"maintenance"`
	Copies        []copyItem           `json:"copies"`
	Conditions    []operatorCondition  `json:"conditions"`
	Alerts        listed[alertItem]    `json:"alerts"`
	Alerting      int                  `json:"alerting"` // subjects of Alerts in state alert
	Charts        map[string]chartItem `json:"charts"`
	Log           []lineItem           `json:"log"`
}

// listed is the beginning of a list.
type listed[T any] struct {
	Total int `json:"total"`
	Items []T `json:"items"`
}

// firstOf returns the first overviewRows of all, in an order, as items.
func firstOf[T, I any](all []T, order func(a, b T) int, item func(*T) I) listed[I] {
	slices.SortStableFunc(all, order)
	l := listed[I]{Total: len(all), Items: []I{}}
	for i := range all[:min(len(all), overviewRows)] {
		l.Items = append(l.Items, item(&all[i]))
	}
	return l
}

// diskItem is the disk with the forecast of when its reserve is reached.
type diskItem struct {
	Free    uint64 `json:"free"`
	Total   uint64 `json:"total"`
	Reserve uint64 `json:"reserve"`
	// PerDay is by how many bytes a day the free space changes. It is absent until enough of the
	// last hours is known.
	PerDay *float64 `json:"per_day,omitempty"`
	// Short is when the free space will be the reserve. It is absent if it grows or hardly shrinks.
	Short string `json:"short,omitempty"`

	short time.Time // as Short
}

// subscriptionItem is a durable subscription without its filter, which may be large.
type subscriptionItem struct {
	Name          string   `json:"name"`
	Lag           uint64   `json:"lag"`
	Outstanding   int      `json:"outstanding"`
	HoldsLog      *float64 `json:"holds_log_seconds"`
	Connections   int      `json:"connections"`
	Snapshot      bool     `json:"snapshot,omitempty"`
	Webhook       string   `json:"webhook,omitempty"` // state
	WebhookError  string   `json:"webhook_error,omitempty"`
	WebhookFailed int      `json:"webhook_attempts,omitempty"`
}

// chartItem has the points of all series in one range, oldest first. Times are unix seconds.
type chartItem struct {
	Step   float64                 `json:"step"`
	Span   float64                 `json:"span"` // that the range keeps
	Start  float64                 `json:"start"`
	Series map[string]chart.Points `json:"series"`
}

// lineItem is a log line.
type lineItem struct {
	ID         uint64 `json:"id"`
	Time       string `json:"time"`
	Level      string `json:"level"`
	Message    string `json:"message"`
	Attributes string `json:"attributes,omitempty"`
}

// paced keeps a value that is costly to compute, at the cost that overviewShare states.
type paced[T any] struct {
	read func() (T, error)

	mu    sync.Mutex
	value T             // mu guards
	born  time.Time     // mu guards; zero without a value
	took  time.Duration // mu guards
}

// get returns the value, which is computed again if it is old.
func (p *paced[T]) get() (T, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	begin := time.Now()
	if !p.born.IsZero() && begin.Sub(p.born) < max(overviewAge, overviewShare*p.took) {
		return p.value, nil
	}
	value, err := p.read()
	if err == nil {
		p.value, p.born = value, time.Now()
		p.took = p.born.Sub(begin)
	}
	return value, err
}

// show handles GET /overview. Its parameters are what the reader has: hour and day, the times of
// the newest points, and log, the id of the newest line.
func (o *overview) show(w http.ResponseWriter, r *http.Request) error {
	q, err := wire.ParseQuery(r)
	if err != nil {
		return err
	}
	since := map[string]uint64{}
	for _, name := range []string{"hour", "day", "log"} {
		if since[name], _, err = q.Uint64(name); err != nil {
			return err
		}
	}
	now := time.Now()
	body := overviewBody{Time: moment(now), Started: moment(o.started), Version: o.stats.version,
		Login: o.token, Subscriptions: o.subscriptions(), Maintenance: o.maintenance.view(),
		Copies: o.copies.items(), Conditions: o.conditions.operators(),
		Charts: map[string]chartItem{}, Log: o.lines(since["log"])}
	if body.Stats, err = o.stats.read(); err != nil {
		return err
	}
	if body.Hosts, err = o.hosts.get(); err != nil {
		return err
	}
	body.Sources, body.Alerts = o.someSources(), o.someAlerts(&body.Alerting)
	if o.charts != nil {
		body.Charts["hour"] = o.chart(o.charts.Hour(unixTime(since["hour"])))
		body.Charts["day"] = o.chart(o.charts.Day(unixTime(since["day"])))
	}
	body.Disk = o.diskItem(now)
	body.Verdict = o.verdict(now, &body)
	w.Header().Set("Cache-Control", "no-store")
	wire.WriteJSON(w, http.StatusOK, body)
	return nil
}

// unixTime returns a time of the query. A time beyond the range of clocks is as one in the far
// future.
func unixTime(seconds uint64) time.Time { return time.Unix(int64(min(seconds, 1<<33)), 0) }

// someSources returns the sources that fail or are furthest behind.
func (o *overview) someSources() listed[sourceItem] {
	var all []Source
	if o.sources.firehose.Sources != nil {
		all = o.sources.firehose.Sources()
	}
	return firstOf(all, func(a, b Source) int {
		if a.failing() != b.failing() {
			return cmp.Compare(b.Failures, a.Failures)
		}
		return cmp.Or(cmp.Compare(b.Lag, a.Lag), cmp.Compare(a.URL, b.URL))
	}, (*Source).item)
}

// someAlerts returns subjects that alert, and then those in grace.
func (o *overview) someAlerts(alerting *int) listed[alertItem] {
	all := o.alerts()
	for _, s := range all {
		if s.Now == alert.Alert {
			*alerting++
		}
	}
	return firstOf(all, func(a, b alert.Subject) int {
		return cmp.Compare(a.Now, b.Now) // "alert" is before "grace"
	}, newAlertItem)
}

func (o *overview) subscriptions() []subscriptionItem {
	items := []subscriptionItem{}
	for _, s := range o.registry.All() {
		it := subscriptionItem{Name: s.Name, Lag: s.Lag, Outstanding: s.Outstanding,
			HoldsLog: s.HoldsLog, Connections: len(s.Connections), Snapshot: s.Snapshot != nil}
		if h := s.Webhook; h != nil {
			it.Webhook, it.WebhookFailed = h.State, h.Attempts
			it.WebhookError = cmp.Or(h.LastError, h.Reason)
		}
		items = append(items, it)
	}
	return items
}

func (o *overview) lines(after uint64) []lineItem {
	items := []lineItem{}
	if o.journal == nil {
		return items
	}
	for _, l := range o.journal.After(after, overviewLines) {
		items = append(items, lineItem{l.ID, moment(l.Time), l.Level.String(), l.Message, l.Attributes})
	}
	return items
}

func (o *overview) chart(v chart.View) chartItem {
	c := chartItem{Step: v.Step.Seconds(), Span: v.Span.Seconds(),
		Start:  float64(v.Start.UnixMilli()) / 1000,
		Series: map[string]chart.Points{}}
	for i, s := range o.charts.Series() {
		c.Series[s.Name] = v.Values[i]
	}
	return c
}

// diskItem returns the disk and the forecast, nil if the disk is unknown.
func (o *overview) diskItem(now time.Time) *diskItem {
	if o.disk == nil {
		return nil
	}
	d, err := o.disk()
	if err != nil {
		return nil // a condition and an alert say so
	}
	it := &diskItem{Free: d.Free, Total: d.Total, Reserve: d.Reserve}
	perSecond, ok := o.freeTrend(now)
	if !ok {
		return it
	}
	perDay := perSecond * 86400
	it.PerDay = &perDay
	left := max(0, float64(d.Free)-float64(d.Reserve)) / -perSecond // seconds
	if perSecond < 0 && left < forecastMax.Seconds() {
		it.short = now.Add(time.Duration(left * float64(time.Second)))
		it.Short = rfc3339(it.short.Unix())
	}
	return it
}

// The forecast of the disk is for at most forecastMax. It follows the last trendSpan of the day
// once it has trendLeast points, half an hour, and the last hour before that.
const (
	forecastMax     = 2 * 365 * 24 * time.Hour
	trendSpan       = 6 * time.Hour
	trendLeast      = 6
	trendLeastShort = 30 // points of the hour, five minutes
)

// freeTrend returns by how many bytes a second the free space changes; ok is false if that is not
// known yet.
func (o *overview) freeTrend(now time.Time) (perSecond float64, ok bool) {
	if o.charts == nil {
		return 0, false
	}
	i := slices.IndexFunc(o.charts.Series(), func(s chart.Series) bool { return s.Name == FreeSeries })
	if i < 0 {
		return 0, false
	}
	day := o.charts.Day(now.Add(-trendSpan))
	if perSecond, ok = chart.Trend(day.Step, day.Values[i], trendLeast); ok {
		return perSecond, ok
	}
	hour := o.charts.Hour(now.Add(-time.Hour))
	return chart.Trend(hour.Step, hour.Values[i], trendLeastShort)
}

// hostSummary has the numbers of hosts by state, and the hosts that matter most.
type hostSummary struct {
	States map[string]int `json:"states"`
	listed[hostItem]
}

// only returns a test of whether a host is known as a firehose only: a relay has a row, because its
// listings are read, and no repositories.
func (s *sources) only() func(*store.Host) bool {
	names := map[string]bool{}
	if s.firehose.Sources != nil {
		for _, src := range s.firehose.Sources() {
			names[identity.HostOf(src.URL)] = true
		}
	}
	return func(h *store.Host) bool { return names[h.Name] && h.Accounts == 0 && h.Queued == 0 }
}

// summary reads all hosts, of which a network has thousands, but for those that only finds. Those
// that fail come first, and then those with the longest queues.
func (hs *hosts) summary(only func() func(*store.Host) bool) (hostSummary, error) {
	skip := only()
	type ranked struct {
		host  store.Host
		state string
	}
	s := hostSummary{States: map[string]int{}}
	for _, state := range pace.States {
		s.States[state] = 0
	}
	order := func(a, b ranked) int {
		if ok := a.state == "ok"; ok != (b.state == "ok") {
			if ok {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(b.host.Queued, a.host.Queued),
			cmp.Compare(b.host.Accounts, a.host.Accounts),
			cmp.Compare(a.host.Name, b.host.Name))
	}
	var best []ranked
	total := 0
	_, _, err := hs.store.Hosts("", 1, func(h *store.Host) bool {
		if skip(h) {
			return false
		}
		state := stateOf(h, hs.opts.standing(h))
		total++
		s.States[state]++
		if best = append(best, ranked{*h, state}); len(best) >= 4*overviewRows {
			slices.SortFunc(best, order)
			best = best[:overviewRows]
		}
		return false
	})
	s.listed = firstOf(best, order, func(r *ranked) hostItem { return hs.item(&r.host) })
	s.Total = total
	return s, err
}

// PublicStatus returns what outsiders may see, for the public status page.
func (h *Handlers) PublicStatus(now time.Time) statuspage.Status {
	o := &h.overview
	counts := maps.Clone(o.stats.store.Counts())
	counts["syncing"] = int64(o.stats.syncing())
	f := statuspage.Facts{Now: now, Version: o.stats.version, Counts: counts, Alerts: o.alerts(),
		Conditions: o.conditions.status(), Charts: o.charts,
		Paused: slices.Collect(maps.Keys(o.stats.ingestion.paused()))}
	if p := o.stats.phases.unlessActive(); p != nil {
		f.Phase = p.Phase
	}
	if o.sources.firehose.Sources != nil {
		for _, src := range o.sources.firehose.Sources() {
			f.Sources = append(f.Sources, statuspage.Following{URL: src.URL, PDS: src.PDS,
				Direct: src.Direct, Running: src.Running, Failing: src.failing(), Lag: src.Lag})
		}
	}
	return statuspage.Of(f)
}
