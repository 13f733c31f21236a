package webhook_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cistern/api/durable"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"
)

// folding is an endpoint that fails now and then, and folds the rest.
type folding struct {
	mu      sync.Mutex
	rng     *rand.Rand
	held    map[string]string // did/path → CID
	taken   map[uint64]bool
	last    map[string]uint64 // by account
	records int
	end     uint64 // the first event behind the snapshot; 0: that has not ended
	wrong   []string
}

func (f *folding) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	f.mu.Lock()
	defer f.mu.Unlock()
	var message struct {
		Data []struct {
			ID       uint64
			Type     string
			Snapshot bool
			Next     uint64
			Record   struct{ DID, Collection, Rkey, Action, CID string }
		}
	}
	if err == nil {
		err = json.Unmarshal(body, &message)
	}
	if f.rng.IntN(4) == 0 {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	for _, m := range message.Data {
		name := m.Record.DID + "/" + m.Record.Collection + "/" + m.Record.Rkey
		switch {
		case f.taken[m.ID], m.Snapshot && f.end != 0, f.last[m.Record.DID] > m.ID && m.Snapshot,
			m.Type == "snapshot_end" && (len(message.Data) != 1 || f.end != 0),
			m.Type != "snapshot_end" && !m.Snapshot && (f.end == 0 || m.ID < f.end):
			f.wrong = append(f.wrong, fmt.Sprintf("%+v in %s", m, body))
		case m.Type == "snapshot_end":
			f.end = m.Next
		case m.Type == "record":
			if f.held[name] = m.Record.CID; m.Record.Action == "delete" {
				delete(f.held, name)
			}
		}
		if m.Snapshot {
			f.records++
		}
		f.taken[m.ID], f.last[m.Record.DID] = true, m.ID
	}
	if err != nil {
		f.wrong = append(f.wrong, err.Error())
	}
	w.WriteHeader(http.StatusNoContent)
}

// TestSnapshotByWebhook: a webhook gets all records, the end, and the log, through failures and
// restarts; what it took does not come again. Records change meanwhile.
func TestSnapshotByWebhook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		f := &folding{rng: w.rng, held: map[string]string{}, taken: map[uint64]bool{}, last: map[string]uint64{}}
		w.server.Handler = f
		w.open()
		const repos = 6
		for n := range repos {
			importRecords(t, w.s, storetest.DID(n), storetest.Random(w.rng, 30))
		}
		head := w.s.Head()
		wanted := durable.WantedWebhook{URL: hookURL, Events: 4, Requests: 3}
		if _, _, err := w.subs.Put(t.Context(), "a", durable.Wanted{Start: durable.Start{Snapshot: true}, Webhook: &wanted}); err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			f.mu.Lock() // the random numbers
			did, key := storetest.DID(w.rng.IntN(repos)), w.rng.IntN(30)
			f.mu.Unlock()
			op := store.Op{Path: fmt.Appendf(nil, "app.test.c%d/%d", key%4, key)}
			if i%3 > 0 {
				op.Record = storetest.Text(fmt.Sprint(i))
				op.CID = repo.HashCID(op.Record)
			}
			updateRepo(t, w.s, did, func(b *store.Batch, r *store.Repo) error { return b.Apply(r, true, r.Rev, []store.Op{op}) })
			time.Sleep(20 * time.Second)
			if i%5 == 4 {
				w.restart(false)
			}
		}
		w.drained()
		f.mu.Lock()
		defer f.mu.Unlock()
		want := map[string]string{}
		for n := range repos {
			r, err := w.s.Repo(storetest.DID(n))
			if err != nil {
				t.Fatal(err)
			}
			for c := range 4 {
				for _, rec := range storetest.List(t, w.s, &r, fmt.Sprint("app.test.c", c), "", 1000, false) {
					want[r.DID+"/"+rec.Collection+"/"+rec.Rkey] = rec.CID.String()
				}
			}
		}
		if !maps.Equal(want, f.held) || len(want) == 0 {
			t.Errorf("%d records are held, want %d:\n%v\n%v", len(f.held), len(want), f.held, want)
		}
		if len(f.wrong) > 0 || f.end != head+1 || f.records < 100 {
			t.Errorf("%d records, the log from %d, want %d: %v", f.records, f.end, head+1, f.wrong)
		}
		w.close()
		w.end()
	})
}

func updateRepo(t *testing.T, s *store.Store, did string, fn func(b *store.Batch, r *store.Repo) error) {
	t.Helper()
	wait, err := s.UpdateRepo(did, func(b *store.Batch, r *store.Repo) error {
		err := fn(b, r)
		b.PutRepo(r)
		return err
	})
	if err == nil {
		err = wait()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func importRecords(t *testing.T, s *store.Store, did string, m storetest.Records) {
	t.Helper()
	var im store.Import
	updateRepo(t, s, did, func(b *store.Batch, r *store.Repo) error {
		b.Track(r, store.ByOperator, store.PriorityOperator)
		im = m.Import(*r, storetest.Rev(1))
		return nil
	})
	im.Done = func(_ store.Repo, err error) {
		if err != nil {
			t.Errorf("import of %s: %v", did, err)
		}
	}
	if err := s.Import(t.Context(), im); err != nil {
		t.Fatal(err)
	}
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
}
