package archive_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cistern/archive"
	"cistern/filter"
	"cistern/objects"
	"cistern/objects/objectstest"
	"cistern/store"
	"cistern/store/storetest"
)

// TestReplay: with offloading and pruning in between, any replay equals that of a store that kept
// everything.
func TestReplay(t *testing.T) {
	t.Parallel()
	objectstest.Each(t, func(t *testing.T, _ objects.Destination) {
		s3 := strings.HasSuffix(t.Name(), "s3")
		seeds(t, 2, func(t *testing.T, seed uint64) {
			var to objects.Destination
			if to, _ = objectstest.Directory(t); s3 {
				to = objectstest.Bucket(t, nil)
			}
			w := newWorld(t, seed, to)
			defer w.end()
			for range 6 {
				w.write(1 + w.rng.IntN(60))
				if w.rng.IntN(3) > 0 {
					if err := w.a.Offload(t.Context(), none); err != nil {
						t.Fatal(err)
					}
				}
				if w.rng.IntN(2) == 0 {
					w.prune()
				}
				w.same(4)
			}
			if err := w.a.Offload(t.Context(), none); err != nil {
				t.Fatal(err)
			}
			w.prune()
			w.same(4)
		})
	})
}

// errTorn is that of a destination which fails.
var errTorn = errors.New("torn")

// torn is a destination whose Put fails at one call: before it, after it, or with a part stored.
type torn struct {
	objects.Destination
	how string
	at  int
}

func (d *torn) Put(ctx context.Context, name string, c objects.Content) error {
	if d.at--; d.at != 0 {
		return d.Destination.Put(ctx, name, c)
	}
	b := make([]byte, c.Size)
	if _, err := c.Reader.Read(b); err != nil {
		return err
	}
	switch d.how {
	case "not applied":
		return errTorn
	case "applied":
		_ = objects.PutText(ctx, d.Destination, name, b)
		return errTorn
	case "cut in silence":
		return objects.PutText(ctx, d.Destination, name, b[:len(b)/2])
	}
	b[len(b)/2] ^= 1 // "changed in silence"
	return objects.PutText(ctx, d.Destination, name, b)
}

// TestTorn: whatever a destination makes of an object, nothing is pruned that cannot be read, and
// the next attempt goes on.
func TestTorn(t *testing.T) {
	storetest.WithoutRace(t)
	t.Parallel()
	for _, how := range []string{"not applied", "applied", "cut in silence", "changed in silence"} {
		seeds(t, 1, func(t *testing.T, seed uint64) {
			to, _ := objectstest.Directory(t)
			w := newWorld(t, seed, to)
			defer w.end()
			w.write(150)
			for at := range 6 {
				was := len(w.s.Segments())
				err := w.open(&torn{to, how, at%2 + 1}, nil).Offload(t.Context(), none)
				w.prune()
				w.same(2)
				if err == nil {
					t.Fatal("no error")
				}
				if n := len(w.s.Segments()); n != was+at%2 {
					t.Fatalf("%s: %d segments after %d and an error at object %d: %v", how, n, was, at%2+1, err)
				}
				w.write(30)
			}
			if err := w.a.Offload(t.Context(), none); err != nil {
				t.Error(err)
			}
			w.prune()
			w.same(4)
		})
	}
}

// TestCrash: a crash at any step of Offload leaves a log without a hole or a repetition, and the
// next attempt goes on.
func TestCrash(t *testing.T) {
	storetest.WithoutRace(t)
	t.Parallel()
	for _, step := range []string{"built", "stored", "read back", "recorded"} {
		seeds(t, 1, func(t *testing.T, seed uint64) {
			to, _ := objectstest.Directory(t)
			w := newWorld(t, seed, to)
			for at := range 4 {
				w.write(40)
				fs, n := w.o.FS.(*storetest.CrashFS), 0
				var left *storetest.CrashFS
				a := w.open(to, func(name string) {
					if name == step && n == at%2 {
						left = fs.Clone(w.rng, w.rng.IntN(101))
					}
					if name == step {
						n++
					}
				})
				if err := a.Offload(t.Context(), none); err != nil {
					t.Fatal(err)
				}
				if left == nil { // one segment only
					continue
				}
				if err := w.s.Close(); err != nil {
					t.Fatal(err)
				}
				w.o.FS = left
				s, err := store.Open(w.o)
				if err != nil {
					t.Fatal(err)
				}
				w.use(s)
				w.prune()
				w.same(4)
			}
			w.end()
		})
	}
}

// TestCancel: what was moved before the context ended stays moved.
func TestCancel(t *testing.T) {
	t.Parallel()
	to, _ := objectstest.Directory(t)
	w := newWorld(t, 1, to)
	defer w.end()
	w.write(200)
	ctx, stop := context.WithCancel(t.Context())
	err := w.a.Offload(ctx, func(int64, int64) { stop() })
	if !errors.Is(err, context.Canceled) || len(w.s.Segments()) != 1 {
		t.Errorf("%d segments, %v", len(w.s.Segments()), err)
	}
	w.prune()
	w.same(4)
	if err := w.a.Offload(t.Context(), none); err != nil {
		t.Error(err)
	}
	if all := w.s.Segments(); all[len(all)-1].Next != w.s.Head()+1 {
		t.Errorf("the segments end before %d, the head is %d", all[len(all)-1].Next, w.s.Head())
	}
	w.same(4)
}

// TestDamaged: of a segment that is changed, cut, missing or another one, no event is read.
func TestDamaged(t *testing.T) {
	storetest.WithoutRace(t)
	t.Parallel()
	to, root := objectstest.Directory(t)
	w := newWorld(t, rand.Uint64(), to)
	defer w.end()
	w.write(200)
	if err := w.a.Offload(t.Context(), none); err != nil {
		t.Fatal(err)
	}
	w.prune()
	files, err := filepath.Glob(filepath.Join(root, "log", "*", "*.seg"))
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	head := w.s.Head()
	all, err := filter.CompileEvents(filter.EventsConfig{Kinds: filter.EventKinds})
	if err != nil {
		t.Fatal(err)
	}
	want := replay(t, w.twin, all, 1, head, 1000)
	whole := make([][]byte, 2)
	for i := range whole {
		if whole[i], err = os.ReadFile(files[i]); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 60 {
		b := slices.Clone(whole[1])
		switch at := w.rng.IntN(len(b)); i % 4 {
		case 0:
			b[at] ^= 1 << w.rng.IntN(8)
		case 1:
			b = b[:at]
		case 2:
			b = whole[0] // with other events, or of another log
		case 3:
			b = nil
		}
		if err := errors.Join(os.Remove(files[1]), os.WriteFile(files[1], b, 0o600)); b != nil && err != nil {
			t.Fatal(err)
		} else if b == nil {
			if err := os.Remove(files[1]); err != nil {
				t.Fatal(err)
			}
		}
		got, a, err := 0, w.open(to, nil), error(nil)
		for at := uint64(1); at <= head && err == nil; {
			at, err = a.ReadLog(t.Context(), at, 30, func(e *store.Event) error {
				if e.ID != want[got].ID || string(e.Record) != string(want[got].Record) {
					t.Errorf("event %d instead of %d", e.ID, want[got].ID)
				}
				got++
				return nil
			})
		}
		unread := i%4 < 2 && err == nil && got == len(want) // a bit of the magic, or of the footer
		if !unread && (err == nil || !strings.Contains(err.Error(), filepath.Base(files[1]))) {
			t.Errorf("case %d: %d events of %d, %v", i%4, got, len(want), err)
		}
		if err := os.WriteFile(files[1], whole[1], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.same(4)
}

// TestOutside: cursors outside of the archive and the log.
func TestOutside(t *testing.T) {
	t.Parallel()
	to, _ := objectstest.Directory(t)
	s := storetest.Open(t, store.Options{Archive: true})
	author := &storetest.Author{T: t, Store: s, Rand: rand.New(rand.NewPCG(2, 2)), Repos: 4}
	for range 100 {
		author.Step()
	}
	a, err := archive.New(archive.Options{Store: s, Destination: to})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		cursor, next uint64
		err          error
	}{
		{0, 1, nil}, {1, 1, nil}, {s.Head() + 1, s.Head() + 1, nil}, {s.Head() + 2, 0, store.ErrFutureCursor},
	} {
		for range 2 { // without segments, and with
			next, err := a.ReadLog(t.Context(), row.cursor, 0, nil)
			if !errors.Is(err, row.err) || err == nil && next != row.next {
				t.Errorf("cursor %d: next %d, %v", row.cursor, next, err)
			}
			if err := a.Offload(t.Context(), none); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := archive.New(archive.Options{Store: s, Destination: to, SegmentBytes: 17 << 20}); err == nil {
		t.Error("a segment may be too long")
	}
}

// waiting is a destination whose GetRange waits.
type waiting struct {
	objects.Destination
	reached, goahead chan struct{}
}

func (d *waiting) GetRange(ctx context.Context, name string, at, n int64) ([]byte, error) {
	d.reached <- struct{}{}
	<-d.goahead
	return d.Destination.GetRange(ctx, name, at, n)
}

// TestReaders: so many pages read segments at a time and no more; reading the log needs no turn.
func TestReaders(t *testing.T) {
	t.Parallel()
	to, _ := objectstest.Directory(t)
	w := newWorld(t, 3, to)
	defer w.end()
	w.write(100)
	if err := w.a.Offload(t.Context(), none); err != nil {
		t.Fatal(err)
	}
	w.prune()
	w.write(10)
	slow := &waiting{to, make(chan struct{}, 100), make(chan struct{})}
	a := w.open(slow, nil)
	done := make(chan error)
	for range 2 * archive.ReadersMax {
		go func() {
			_, err := a.ReadLog(context.WithoutCancel(t.Context()), 1, 5, func(*store.Event) error { return nil })
			done <- err
		}()
	}
	for range archive.ReadersMax {
		<-slow.reached
	}
	ended, stop := context.WithCancel(t.Context())
	stop()
	if _, err := a.ReadLog(ended, 1, 5, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("one more: %v", err)
	}
	if n := archive.Busy(a); n != archive.ReadersMax {
		t.Errorf("%d pages read segments", n)
	}
	if _, err := a.ReadLog(t.Context(), w.s.Tail(), 5, func(*store.Event) error { return nil }); err != nil {
		t.Errorf("in the log: %v", err)
	}
	close(slow.goahead)
	for range 2 * archive.ReadersMax {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// FuzzSegment decodes what no archive wrote.
func FuzzSegment(f *testing.F) {
	b, frame, err := archive.Sample()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(frame)
	f.Add([]byte("CISTSEG1"))
	f.Fuzz(func(t *testing.T, b []byte) { archive.Decode(t, b) })
}
