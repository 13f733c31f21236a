//go:build browser

package main

import (
	"fmt"
	"testing"

	"cistern/ingest/simnet"

	"github.com/chromedp/chromedp"
)

// TestBrowserFrontPage looks at the page of the public listener: live events appear and can be
// paused, the page fits a phone, and the console complains of nothing.
func TestBrowserFrontPage(t *testing.T) {
	b := startBrowser(t)
	n := startNetwork(t, simnet.Options{Seed: 43, Repos: 5, Hosts: 1})
	x := newTestIndex(t)
	x.start(t, []string{"run", "--data", x.dir, "--listen", x.public, "--admin", x.admin, "--plc", n.PLC(), "--allow-private",
		"--log-level", "error", "--crawl", "repos::" + n.Relay(), "--relay", n.Relay()})
	x.await(t, "the repositories", func() error {
		counts, err := x.counts(t.Context())
		if err == nil && counts["synced"] != 5 {
			err = fmt.Errorf("%v", counts)
		}
		return err
	})
	b.do(t, open("http://"+x.public+"/", "#live"))
	shows := func(a *simnet.Account, what string) {
		t.Helper()
		b.await(t, x, "the stream", `document.getElementById("live-state").textContent === "connected"`)
		b.do(t, chromedp.Evaluate[chromedp.Void](`window.before = document.querySelector("#events li:first-child")`))
		if _, err := a.Mutate(3); err != nil {
			t.Fatal(err)
		}
		b.await(t, x, what, `(() => { const all = [...document.querySelectorAll("#events li")], old = all.indexOf(window.before);
			return all.length <= 30 && all.slice(0, old < 0 ? all.length : old).some((e) => e.textContent.includes("`+a.DID()+`")); })()`)
	}
	shows(n.Accounts()[0], "an event")
	b.do(t, click("#pause"))
	b.await(t, x, "the pause", `document.getElementById("live-state").textContent === "paused"`)
	b.do(t, click("#pause"))
	shows(n.Accounts()[1], "an event after the pause")
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int{1280, 375} {
			b.view(t, width, 812, scheme)
			if wide := get[int](t, b, "document.documentElement.scrollWidth"); wide > width {
				t.Errorf("at %d px the page is %d px wide", width, wide)
			}
		}
		b.screen(t, "frontpage-375-"+scheme)
	}
	b.wantErrors(t)
}
