package intake_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/backfill/backfilltest"
	"cistern/filter"
	"cistern/ingest/identity"
	"cistern/ingest/simnet"
	"cistern/intake"
	"cistern/store"
	"cistern/store/storetest"
)

// TestForms loads a world from each form of a source, again, and after changes.
func TestForms(t *testing.T) {
	t.Parallel()
	for seed, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, simnet.Options{Seed: uint64(seed + 11), Repos: 30, Hosts: 3, Empty: 1, OddKeys: 2,
				LegacyEvery: 5, Clutter: true}, store.Options{SmallBytes: 64 << 10})
			all := w.Net.Accounts()
			src := f.write(t, append(w.cars(all...), file{"manifest.ndjson", []byte("{}\n")}))
			w.wants(w.load(src), 30, 0, 0, 0)
			w.equal(all...)
			if relay, ok, err := w.Store.ReconcileHosts(); err != nil || !ok {
				t.Errorf("the lists of hosts are not compared: %q %v %v", relay, ok, err)
			}
			head := w.Store.Head()
			w.wants(w.load(src), 0, 0, 30, 0)
			if w.Store.Head() != head {
				t.Errorf("loading the same again wrote events %d to %d", head, w.Store.Head())
			}
			for _, a := range all[:10] {
				if _, err := a.Mutate(20); err != nil {
					t.Fatal(err)
				}
			}
			w.wants(w.load(f.write(t, w.cars(all...))), 0, 10, 20, 0)
			w.equal(all...)
			w.wants(w.load(src), 0, 0, 30, 0)
			w.equal(all...)
		})
	}
}

// TestLarge loads CARs that are read from the archive itself, and one at a time.
func TestLarge(t *testing.T) {
	t.Parallel()
	for _, f := range forms[:2] {
		w := newWorld(t, simnet.Options{Seed: 21, Repos: 12}, store.Options{})
		all := w.Net.Accounts()
		l := w.loader(f.write(t, w.cars(all...)))
		l.SetSizes(4<<10, 8<<10)
		sum, err := l.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.wants(sum, 12, 0, 0, 0)
		w.equal(all...)
		storetest.Check(t, w.Store)
	}
}

// TestRefusals has each reason to refuse a CAR once, between CARs that are stored.
func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simnet.Options{Seed: 5, Repos: 14}, store.Options{})
	all := w.Net.Accounts()
	files := w.cars(all...)
	good := files[10:]
	refused := func(i int, change func(f *file)) { change(&files[i]) }
	refused(0, func(f *file) { f.body[len(f.body)-3] ^= 1 })
	refused(1, func(f *file) { f.body = f.body[:len(f.body)-10] })
	refused(2, func(f *file) { f.body = nil })
	refused(3, func(f *file) { f.body = []byte("<html>") })
	refused(4, func(*file) { all[4].RotateKey() })
	refused(5, func(*file) { all[5].Tombstone() })
	_, err := w.Store.SetFilter(filter.Config{Excludes: []string{all[6].DID()}})
	if err != nil {
		t.Fatal(err)
	}
	w.Change(all[7].DID(), func(r *store.Repo) { r.State, r.Status = store.StateGone, store.StatusTakendown })
	w.Know(all[8].DID())
	refused(9, func(f *file) { // half of the CAR: its tree lacks nodes
		f.body = cut(t, f.body)
	})
	files[9].name = "\x1b[2J" + strings.Repeat("long", 40) + ".car"
	for _, form := range []form{forms[0], forms[1]} {
		got := w.load(form.write(t, files))
		if got.New+got.NotNewer != int64(len(good)) || got.Refused != 10 {
			t.Errorf("%+v", got)
		}
		w.equal(all[10:]...)
		for i, want := range []string{"does not hash", "unexpected EOF", "empty", "CAR header", "signature",
			"tombstoned", "excludes", "takendown", "not followed", "is missing"} {
			at := slices.IndexFunc(w.refusals, func(r intake.Refusal) bool { return r.Path == files[i].name })
			if at < 0 || !strings.Contains(w.refusals[at].Reason, want) {
				t.Errorf("%s is refused as %+v, want %q", files[i].name, w.refusals, want)
				continue
			}
			if did := w.refusals[at].DID; did != "" && did != all[i].DID() {
				t.Errorf("%s is of %s", files[i].name, did)
			}
		}
	}
	if w.Row(all[7].DID()).Status != store.StatusTakendown || w.Known(all[5].DID()) {
		t.Error("a refused CAR changed a row")
	}
}

// cut leaves out the last block of a CAR, at its beginning.
func cut(t *testing.T, car []byte) []byte {
	t.Helper()
	at, last := 0, 0
	for at < len(car) {
		n, k := 0, 0
		for shift := 0; ; shift += 7 {
			b := car[at+k]
			n |= int(b&0x7f) << shift
			k++
			if b < 0x80 {
				break
			}
		}
		last, at = at, at+k+n
	}
	return car[:last]
}

// TestSignals refuses repositories without a record that a signal names.
func TestSignals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simnet.Options{Seed: 8, Repos: 10, Empty: 3}, store.Options{})
	if _, err := w.Store.SetFilter(filter.Config{Signals: []string{"app.bsky.*"}}); err != nil {
		t.Fatal(err)
	}
	all := w.Net.Accounts()
	got := w.load(forms[1].write(t, w.cars(all...)))
	w.wants(got, 7, 0, 0, 3)
	for i, a := range all {
		if i < 7 && w.Row(a.DID()).Tracked != store.BySignal || i >= 7 && w.Known(a.DID()) {
			t.Errorf("account %d has a row: %v", i, w.Known(a.DID()))
		}
	}
}

// TestTwice loads two CARs of each account from one source, in both orders.
func TestTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simnet.Options{Seed: 13, Repos: 16}, store.Options{})
	all := w.Net.Accounts()
	old := w.cars(all...)
	for _, a := range all {
		if _, err := a.Mutate(5); err != nil {
			t.Fatal(err)
		}
	}
	var files []file
	for i, f := range w.cars(all...) {
		f.name = "new/" + f.name
		files = append(files, f)
		files = slices.Insert(files, len(files)-i%2, old[i])
	}
	got := w.load(forms[1].write(t, files))
	if got.New != 16 || got.Updated+got.NotNewer != 16 || got.Refused != 0 {
		t.Errorf("%+v", got)
	}
	w.equal(all...)
}

// TestAnnounced loads a CAR that is older than what a firehose has announced: the host is asked
// when the daemon starts.
func TestAnnounced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simnet.Options{Seed: 14, Repos: 2}, store.Options{})
	all := w.Net.Accounts()
	w.load(forms[0].write(t, w.cars(all[0])))
	if _, err := all[0].Mutate(3); err != nil {
		t.Fatal(err)
	}
	older := w.cars(all[0])
	if _, err := all[0].Mutate(3); err != nil {
		t.Fatal(err)
	}
	rev := all[0].Truth().Rev
	w.Change(all[0].DID(), func(r *store.Repo) { r.SeenRev = rev })
	w.wants(w.load(forms[0].write(t, older)), 0, 1, 0, 0)
	row := w.Row(all[0].DID())
	if row.State != store.StatePending || !row.Recheck || row.SeenRev != rev {
		t.Errorf("row %+v", row)
	}
	w.Go()
	w.Settle(all[0].DID())
	w.equal(all[0])
}

// TestCut loads archives that are cut off anywhere: what stands before is stored, and the end of the
// run says so.
func TestCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simnet.Options{Seed: 15, Repos: 6, RecordsMedian: 8}, store.Options{})
	all := w.Net.Accounts()
	whole := archive(t, w.cars(all...))
	rng := rand.New(rand.NewPCG(15, 0))
	ends := []int{0, 1, 512, len(whole) - 1024, len(whole) - 512}
	for range 12 {
		ends = append(ends, rng.IntN(len(whole)-1024))
	}
	for _, end := range ends {
		sum, err := w.loader(writeFile(t, "x.tar", whole[:end])).Run(t.Context())
		if err == nil {
			t.Errorf("cut at %d of %d: no error, %+v", end, len(whole), sum)
		}
	}
	storetest.Check(t, w.Store)
	w.load(writeFile(t, "x.tar", whole))
	w.equal(all...)
}

// TestOpen names sources that cannot be read.
func TestOpen(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simnet.Options{Seed: 16, Repos: 3}, store.Options{})
	dir := t.TempDir()
	for text, want := range map[string]string{
		dir:                         "no file ends in .car",
		filepath.Join(dir, "none"):  "no such file",
		"gs://x/y":                  "want a directory or s3://",
		"/dev/null":                 "neither a directory nor",
		"s3://bucket/x.tar":         "AWS_ACCESS_KEY_ID",
		"s3://bucket/some/prefix/x": "AWS_ACCESS_KEY_ID",
	} {
		if _, err := intake.Open(t.Context(), text, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	sum, err := w.loader(forms[1].write(t, []file{{"readme", nil}})).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no file that ends in .car") {
		t.Errorf("an archive without CARs: %v, %+v", err, sum)
	}
}

// TestLinks has a directory with links and a pipe, which are not read.
func TestLinks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simnet.Options{Seed: 17, Repos: 3}, store.Options{})
	all := w.Net.Accounts()
	secret := writeDirectory(t, w.cars(all[2]))
	dir := writeDirectory(t, w.cars(all[0], all[1]))
	for _, err := range []error{
		os.Symlink(filepath.Join(secret, "repos/00/0.car"), filepath.Join(dir, "link.car")),
		os.Symlink(secret, filepath.Join(dir, "linked")),
		syscall.Mkfifo(filepath.Join(dir, "pipe.car"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w.wants(w.load(dir), 2, 0, 0, 0)
	if w.Known(all[2].DID()) {
		t.Error("a link was followed")
	}
}

// failing is a directory of identities that does not answer.
type failing struct {
	backfilltest.Directory
	err error
}

func (f failing) Resolve(context.Context, string) (identity.Identity, error) {
	return identity.Identity{}, f.err
}

// TestUnavailable loads while the directory does not answer: some repositories are refused, and
// many in a row end the run. A document that is missing is the fault of its CAR.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simnet.Options{Seed: 19, Repos: 100, RecordsMedian: 4}, store.Options{})
	all := w.Net.Accounts()
	src := forms[1].write(t, w.cars(all...))
	for _, c := range []struct {
		err  error
		ends bool
	}{{errors.New("connection refused"), true}, {identity.ErrNotFound, false}} {
		source, err := intake.Open(t.Context(), src, nil)
		if err != nil {
			t.Fatal(err)
		}
		l, err := intake.New(intake.Options{Store: w.Store, Directory: failing{err: c.err}, Source: source,
			RetryBase: time.Microsecond})
		if err != nil {
			t.Fatal(err)
		}
		sum, err := l.Run(t.Context())
		if ends := errors.Is(err, backfill.ErrUnavailable); ends != c.ends || !ends && (err != nil || sum.Refused != 100) {
			t.Errorf("%v: %v, %+v", c.err, err, sum)
		}
		if sum.New != 0 {
			t.Errorf("%v: %+v", c.err, sum)
		}
		if err := source.Close(); err != nil {
			t.Error(err)
		}
	}
	w.wants(w.load(src), 100, 0, 0, 0)
}

// TestInterrupted ends runs at random times. What they leave is whole, and the last run completes
// it.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	for seed := range storetest.Seeds(3) {
		t.Logf("seed %d", seed)
		w := newWorld(t, simnet.Options{Seed: seed + 100, Repos: 40}, store.Options{})
		all := w.Net.Accounts()
		src := forms[seed%2].write(t, w.cars(all...))
		rng := rand.New(rand.NewPCG(seed, 1))
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rng.IntN(20))*time.Millisecond)
			_, _ = w.loader(src).Run(ctx)
			cancel()
			storetest.Check(t, w.Store)
		}
		got := w.load(src)
		if got.New+got.NotNewer != 40 {
			t.Errorf("%+v", got)
		}
		w.equal(all...)
	}
}

// TestCrashes clones the file system at steps of first copies and of differences. Each clone is
// completed by another run.
func TestCrashes(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	const seed = 6
	crashes := backfilltest.NewCrashes(seed, 3, 24)
	w := newWorld(t, simnet.Options{Seed: seed, Repos: 8, RecordsMax: 200},
		store.Options{FS: crashes.FS, Step: crashes.Step, SmallBytes: 16 << 10})
	all := w.Net.Accounts()
	first := forms[0].write(t, w.cars(all...))
	for _, a := range all[:5] {
		if _, err := a.Mutate(30); err != nil {
			t.Fatal(err)
		}
	}
	second := forms[1].write(t, w.cars(all...))
	w.load(first)
	w.load(second)
	w.equal(all...)
	dir := w.Dir
	crashes.SetIdle(true)
	crashes.Each(w.World, 8, func(again *backfilltest.World) {
		again.Dir = dir
		x := &world{World: again}
		got := x.load(second)
		if got.Refused != 0 || got.New+got.Updated+got.NotNewer != 8 {
			t.Errorf("%+v", got)
		}
		x.equal(all...)
	})
}

// FuzzArchive reads archives of any bytes.
func FuzzArchive(f *testing.F) {
	small := []file{{"a.car", []byte("car")}, {"b", []byte("other")}, {"c.car", nil}}
	whole := archive(f, small)
	f.Add(whole)
	f.Add(whole[:700])
	for _, form := range forms[2:] {
		b, err := os.ReadFile(form.write(f, small))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := intake.NewArchive("x", strings.NewReader(string(b)), int64(len(b)))
		if err != nil {
			return
		}
		defer a.Close()
		for range 100 {
			e, err := a.Next(t.Context())
			if err != nil {
				return
			}
			if e.Size < 0 || e.Body == nil || !strings.HasSuffix(e.Name, ".car") {
				t.Fatalf("entry %+v", e)
			}
		}
	})
}
