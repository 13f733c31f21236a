//go:build browser

package main

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"cistern/alert"
	"cistern/backfill"
	"cistern/chart"
	"cistern/ingest/simnet"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// TestBrowserStatusPage looks at the public status page of a daemon with faults, as a visitor does:
// it has the figures of /stats and nothing that is private, keeps still, fits a phone, and can be used
// by keyboard.
func TestBrowserStatusPage(t *testing.T) {
	b := startBrowser(t)
	n := startNetwork(t, simnet.Options{Seed: 44, Repos: 12, Hosts: 3})
	broken := n.Accounts()[4].Host()
	broken.Inject(simnet.Fault{Kind: simnet.ServerError})
	good := 0
	for _, a := range n.Accounts() {
		if a.Host() != broken {
			good++
		}
	}
	x := newTestIndex(t)
	x.token = "open&sesame!"
	dead := freeAddress(t)
	x.startTuned(t, []string{"run", "--data", x.dir, "--listen", x.public, "--admin", x.admin, "--plc", n.PLC(), "--allow-private",
		"--log-level", "error", "--admin-token", x.token, "--status-page", "--crawl", "repos::" + n.Relay(), "--relay", n.Relay(),
		"--pds", "ws://" + dead, "--alert-after", "source=0"},
		tuning{backfill: func(o *backfill.Options) { o.RetryBase, o.RetryMax = time.Hour, time.Hour },
			alerts: func(o *alert.Options) { o.Every = 100 * time.Millisecond },
			charts: func(o *chart.Options) { o.Step = 250 * time.Millisecond }})
	x.await(t, "the good repositories", func() error {
		counts, err := x.counts(t.Context())
		if err == nil && (counts["synced"] != int64(good) || counts["repos"] != 12) {
			err = fmt.Errorf("%v", counts)
		}
		return err
	})
	b.view(t, 1280, 900, "light")
	b.do(t, open("http://"+x.public+"/", "#live"), click(`footer a[href="status"]`), visible("body[data-loaded] #tiles"))
	if at := get[string](t, b, "location.href"); at != "http://"+x.public+"/status" {
		t.Errorf("the link leads to %s", at)
	}
	b.observeShifts(t)
	b.await(t, x, "the alert of the dead source", `document.title.startsWith("1 alert")`)
	x.await(t, "the figures of /stats", func() error { return b.compareStatus(t, x) })
	for selector, wants := range map[string][]string{
		"#verdict":         {"1 alert"},
		"#problems tbody":  {"alert", "firehose", "ago"},
		"#sources tbody":   {"connected", "failing", "a relay of a private network", "a PDS of a private network"},
		"#sources-count":   {"1 of 2 connected"},
		"#backfill-note":   {" of 12 repositories"},
		"#charts":          {"Throughput", "Lag behind the firehoses"},
		"#states tbody":    {"synced", "pending", "resync", "transport"},
		"#live-note":       {"1 of 2 sources"},
		`[href="./"]`:      {"About this index"},
		"#h-charts":        {"Charts"},
		"#backfill-count":  {"%"},
		"#failing-note":    {""},
		"head title":       {"1 alert - Cistern status"},
		`a[href$=".json"]`: {"JSON"},
	} {
		text := b.text(t, selector)
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%s lacks %q: %s", selector, want, text)
			}
		}
	}
	whole := get[string](t, b, "document.documentElement.outerHTML")
	for _, private := range []string{dead, n.Relay()[len("http://"):], n.Accounts()[0].DID(), x.dir, "dial", "503", x.token} {
		if strings.Contains(whole, private) {
			t.Errorf("the page shows %q", private)
		}
	}
	if drawn := get[int](t, b, `document.querySelectorAll("#charts canvas").length`); drawn != 2 {
		t.Errorf("%d charts are drawn", drawn)
	}
	b.wantStill(t)
	if cookies, err := get[string](t, b, "document.cookie"), b.wantNoCookie(t, x); cookies != "" || err != nil {
		t.Errorf("the page has the cookie %q, %v", cookies, err)
	}
	b.fits(t, x, "status")
	b.statusKeyboard(t, x)
	b.wantErrors(t)
}

// wantNoCookie asks for the page, its figures and a part of it, and fails if one sets a cookie.
func (b *browser) wantNoCookie(t *testing.T, x *testIndex) (err error) {
	t.Helper()
	for _, path := range []string{"/status", "/status.json", "/status/status.js"} {
		res, failed := http.Get("http://" + x.public + path)
		if failed != nil {
			return failed
		}
		_ = res.Body.Close()
		if len(res.Cookies()) > 0 || res.StatusCode != http.StatusOK {
			err = errors.Join(err, fmt.Errorf("%s: %s %v", path, res.Status, res.Cookies()))
		}
	}
	return err
}

// compareStatus compares the counts that the status page shows with those of /stats.
func (b *browser) compareStatus(t *testing.T, x *testIndex) (err error) {
	t.Helper()
	counts, err := x.counts(t.Context())
	if err != nil {
		return err
	}
	shown := get[map[string]string](t, b, `({ repos: repos.textContent, records: records.textContent, queue: queue.textContent, failing: failing.textContent,
		...Object.fromEntries([...document.querySelectorAll("#states tbody tr")].map((e) => [e.dataset.key, e.lastChild.textContent])) })`)
	for name, want := range map[string]int64{"repos": counts["repos"], "records": counts["records"], "queue": counts["pending"], "failing": counts["resync"],
		"synced": counts["synced"], "pending": counts["pending"], "resync": counts["resync"], "gone": counts["gone"], "idle": counts["idle"], "draining": counts["draining"],
		"transport": counts["error_transport"], "generic": counts["error_generic"], "ratelimited": counts["error_ratelimited"]} {
		if got := strings.ReplaceAll(shown[name], ",", ""); got != strconv.FormatInt(want, 10) {
			err = errors.Join(err, fmt.Errorf("%s: the page shows %q, /stats %d", name, shown[name], want))
		}
	}
	return err
}

// statusKeyboard goes through the status page by the Tab key.
func (b *browser) statusKeyboard(t *testing.T, x *testIndex) {
	t.Helper()
	b.do(t, open("http://"+x.public+"/status", "body[data-loaded] #tiles"), chromedp.KeyEvent(kb.Tab))
	if first := get[string](t, b, `document.activeElement.className`); first != "skip" {
		t.Errorf("the first element is %q", first)
	}
	b.do(t, chromedp.KeyEvent(kb.Enter))
	var order []string
	for range 6 {
		b.do(t, chromedp.KeyEvent(kb.Tab))
		name := get[string](t, b, focusName)
		order = append(order, name)
		if get[string](t, b, focusOutline) == "none" {
			t.Errorf("the focus on %s is not visible", name)
		}
		if name == "range" {
			b.do(t, chromedp.KeyEvent(kb.ArrowRight))
			b.await(t, x, "the charts of a day", `document.getElementById("chart-1").getAttribute("aria-label").startsWith("Lag behind the firehoses in the last day: ")`)
		}
	}
	if got := strings.Join(order, " "); got != "h-problems range h-sources ./ status.json BODY" {
		t.Errorf("the Tab key goes through %s", got)
	}
}
