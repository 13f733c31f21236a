package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/linkindex"
)

// wantBacklinks opens the backlinks index of a store that no daemon uses. It must be sound, at an
// event that the store has, and equal all records once it has caught up.
func wantBacklinks(t *testing.T, s *store.Store, dir string) {
	t.Helper()
	x, err := linkindex.Open(linkindex.Options{Store: s, Dir: dir})
	if err != nil {
		t.Fatalf("open the backlinks index: %v", err)
	}
	if st := x.State(); st.Through > s.Head() {
		t.Errorf("the backlinks index is at %d, the head is %d", st.Through, s.Head())
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- x.Run(ctx) }()
	for st := x.State(); st.Building || st.Through < s.Head(); st = x.State() {
		if st.Err != nil {
			t.Fatal(st.Err)
		}
		pause(t.Context(), time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	n, compared, err := x.Check(t.Context(), func(d string) { t.Error(d) })
	if n > 0 || !compared || err != nil {
		t.Errorf("backlinks: %d differences, compared %t, %v", n, compared, err)
	}
	if err := x.Close(); err != nil {
		t.Error(err)
	}
}

// wantBacklinks is wantBacklinks for the files of a daemon that has ended.
func (x *testIndex) wantBacklinks(t *testing.T) {
	t.Helper()
	s, err := store.Open(store.Options{Dir: x.dir, MustExist: true})
	if err != nil {
		t.Fatal(err)
	}
	wantBacklinks(t, s, filepath.Join(x.dir, linksDir))
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestBacklinks turns the option on over a store that has records. The daemon answers from the
// index and has metrics of it, the check compares it, and a read-only daemon opens it.
func TestBacklinks(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 10, Hosts: 1})
	x := newTestIndex(t)
	args := x.args(n, "--mode", "full", "--relay", n.Relay())
	stop := x.start(t, args)
	x.settle(t, map[string]int64{"repos": int64(len(n.Accounts())), "synced": active(n.Accounts())})
	stop()
	stop = x.start(t, append(args, "--backlinks"))
	x.await(t, "an index of backlinks", func() error {
		return x.call(t.Context(), "GET", "/metrics", nil, func(b []byte) error {
			for _, m := range []string{"building 0", "lag_events 0", "failed 0"} {
				if !strings.Contains(string(b), "\ncistern_backlinks_"+m+"\n") {
					return fmt.Errorf("no metric %s", m)
				}
			}
			if strings.Contains(string(b), "\ncistern_backlinks_links 0\n") {
				return errors.New("no links")
			}
			return nil
		})
	})
	if err := x.call(t.Context(), "GET", "/links/all?target=did:plc:none", nil, func(b []byte) error {
		if string(b) != `{"links":{}}` {
			return fmt.Errorf("got %s", b)
		}
		return nil
	}); err != nil {
		t.Errorf("links of a subject that has none: %v", err)
	}
	stop()
	out, err := x.command(t.Context(), nil, "check", "--data", x.dir)
	if err != nil || !strings.Contains(out, "no differences") || strings.Contains(out, "not compared") {
		t.Errorf("check: %v\n%s", err, out)
	}
	x.start(t, x.args(n, "--read-only", "--backlinks"))()
	links := filepath.Join(x.dir, linksDir) // cannot be opened: the daemon goes on without it
	if err := errors.Join(os.RemoveAll(links), os.WriteFile(links, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	x.start(t, append(args, "--backlinks"))()
}
