package repo_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"cistern/ingest/repo"
)

// memSpool is a spool in memory that can be told to fail.
type memSpool struct {
	b        []byte
	writeErr error
	readErr  error
	closed   int
}

func (s *memSpool) Write(p []byte) (int, error) {
	if s.writeErr != nil {
		return 0, s.writeErr
	}
	s.b = append(s.b, p...)
	return len(p), nil
}

func (s *memSpool) ReadAt(p []byte, at int64) (int, error) {
	if s.readErr != nil {
		return 0, s.readErr
	}
	if n := copy(p, s.b[min(at, int64(len(s.b))):]); n < len(p) {
		return n, io.EOF
	}
	return len(p), nil
}

func (s *memSpool) Close() error { s.closed++; return nil }

// options make a CAR of every kind of storage: memory, spool from the start, spool from a chunk on.
func storages() map[string]func() repo.CAROptions {
	spool := func() (repo.Spool, error) { return &memSpool{}, nil }
	pool := repo.NewChunkPool(8 << 20)
	return map[string]func() repo.CAROptions{
		"memory": func() repo.CAROptions { return repo.CAROptions{} },
		"pool":   func() repo.CAROptions { return repo.CAROptions{Chunks: pool} },
		"spool":  func() repo.CAROptions { return repo.CAROptions{MemoryBytes: 1, Spool: spool, Chunks: pool} },
		"both": func() repo.CAROptions {
			return repo.CAROptions{MemoryBytes: 2 * repo.ChunkBytes, Spool: spool}
		},
		"refused": func() repo.CAROptions {
			n := 0
			return repo.CAROptions{Spool: spool, Chunks: pool, Grow: func(int64) bool { n++; return n <= 1 }}
		},
	}
}

func mustRead(t testing.TB, car []byte, o repo.CAROptions) *repo.CAR {
	t.Helper()
	c, err := repo.ReadCAR(bytes.NewReader(car), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// checkWorld checks that c is all of w.
func checkWorld(t *testing.T, c *repo.CAR, w *world) {
	t.Helper()
	for range 2 { // the second walk skips what the first has proven
		checkLeaves(t, c, w)
	}
	for _, b := range w.blocks(0) {
		got, ok, err := c.Block(b.cid)
		if err != nil || !ok || !bytes.Equal(got, b.data) {
			t.Fatalf("Block(%s) = %x, %v, %v; want %x", b.cid, got, ok, err, b.data)
		}
	}
	if _, ok, err := c.Block(repo.HashCID([]byte("absent"))); ok || err != nil {
		t.Fatalf("absent block: %v, %v", ok, err)
	}
}

func checkLeaves(t *testing.T, c *repo.CAR, w *world) {
	t.Helper()
	records := make(map[repo.CID][]byte)
	for _, r := range w.records {
		records[r.cid] = r.data
	}
	dense := make(map[int]repo.CID)
	i := 0
	err := c.Walk(w.data, func(l repo.Leaf) error {
		want := w.leaves[i]
		i++
		if string(l.Key) != want.key || l.CID != want.cid || !bytes.Equal(l.Record, records[l.CID]) {
			t.Fatalf("leaf %d is %q %s", i, l.Key, l.CID)
		}
		if l.Valid != repo.ValidPath(l.Key) {
			t.Fatalf("%q: Valid is %v", l.Key, l.Valid)
		}
		if known, ok := dense[l.Block]; ok && known != l.CID || l.Block < 0 || l.Block >= c.Blocks() {
			t.Fatalf("leaf %d has block %d of %d, as has %s", i, l.Block, c.Blocks(), known)
		}
		dense[l.Block] = l.CID
		return nil
	})
	if err != nil || i != len(w.leaves) {
		t.Fatalf("%d leaves of %d: %v", i, len(w.leaves), err)
	}
}

func TestReadCAR(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	for name, options := range storages() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, n := range []int{0, 1, 2, 30, 5000} {
				for seed := range uint64(2) {
					w := newWorld(n, 7)
					car := w.car(seed)
					c := mustRead(t, car, options())
					if c.Root() != w.commit().cid || c.Bytes() != int64(len(car)) || c.Blocks() != len(w.blocks(0)) {
						t.Fatalf("root %s, %d bytes, %d blocks", c.Root(), c.Bytes(), c.Blocks())
					}
					checkWorld(t, c, w)
				}
			}
		})
	}
}

func TestReadCARBlockSizes(t *testing.T) {
	t.Parallel()
	sizes := []int{0, 1, 7, 8, 1000, repo.ChunkBytes - 41, repo.ChunkBytes - 40, repo.ChunkBytes - 39,
		repo.ChunkBytes, repo.ChunkBytes + 1, 2 << 20, 3, 2 << 20, 100}
	var blocks []block
	for i, n := range sizes {
		blocks = append(blocks, newBlock(bytes.Repeat([]byte{byte(i)}, n)))
	}
	blocks = append(blocks, blocks...) // every one twice
	for name, options := range storages() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := mustRead(t, encodeCAR(blocks[0].cid, blocks), options())
			if c.Blocks() != len(sizes) {
				t.Errorf("%d blocks, want %d: duplicates count once", c.Blocks(), len(sizes))
			}
			for _, b := range slices.Backward(blocks) {
				if got, ok, err := c.Block(b.cid); err != nil || !ok || !bytes.Equal(got, b.data) {
					t.Fatalf("block of %d bytes: got %d, %v, %v", len(b.data), len(got), ok, err)
				}
			}
		})
	}
}

// TestReadCARCut cuts a CAR at every byte. Within a section that is an error at once, between two
// it is found by the walk, because something is missing then.
func TestReadCARCut(t *testing.T) {
	t.Parallel()
	w := newWorld(20, 3)
	boundary := map[int]bool{}
	car := carHeader(w.commit().cid)
	boundary[len(car)] = true
	for _, b := range w.blocks(0) {
		car = appendSection(car, b)
		boundary[len(car)] = true
	}
	for cut := range len(car) {
		c, err := repo.ReadCAR(bytes.NewReader(car[:cut]), repo.CAROptions{})
		if !boundary[cut] {
			if !errors.Is(err, repo.ErrInvalid) || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("cut at %d of %d: %v", cut, len(car), err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("cut at boundary %d: %v", cut, err)
		}
		if err := c.Walk(w.data, func(repo.Leaf) error { return nil }); !errors.Is(err, repo.ErrInvalid) {
			t.Fatalf("walk of a CAR cut at %d: %v", cut, err)
		}
	}
}

// readWhole reads a CAR and all that is reached from its commit. A block under a CID of another form than a repository's
// is passed over when it is read, and found missing here.
func readWhole(car []byte, w *world) error {
	c, err := repo.ReadCAR(bytes.NewReader(car), repo.CAROptions{})
	if err != nil {
		return err
	}
	if _, ok, err := c.Block(w.commit().cid); !ok || err != nil {
		return fmt.Errorf("no commit: %w", errors.Join(err, repo.ErrInvalid))
	}
	return c.Walk(w.data, func(repo.Leaf) error { return nil })
}

func TestReadCARBitFlip(t *testing.T) {
	t.Parallel()
	w := newWorld(20, 3)
	car := carHeader(w.commit().cid)
	for _, b := range w.blocks(0) {
		at := len(car)
		car = appendSection(car, b)
		for i := len(car) - len(b.data) - repo.CIDBytes; i < len(car); i++ { // the CID and the block
			car[i] ^= 1 << (i % 8)
			if err := readWhole(car, w); !errors.Is(err, repo.ErrInvalid) {
				t.Fatalf("flip at %d of the section at %d: %v", i-at, at, err)
			}
			car[i] ^= 1 << (i % 8)
		}
	}
}

func TestReadCARInvalid(t *testing.T) {
	t.Parallel()
	b := newBlock([]byte("block"))
	header := carHeader(b.cid)
	body := header[1:]
	section := appendSection(nil, b)
	with := func(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }
	swap := func(old, new string) []byte { return with(bytes.Replace(body, []byte(old), []byte(new), 1)) }
	foreign := func(prefix string) []byte {
		s := append([]byte{byte(len(section) - 1)}, prefix...)
		return append(append(slices.Clone(header), s...), section[1+len(prefix):]...)
	}
	tests := map[string][]byte{
		"nothing at all":                         {},
		"header of no bytes":                     {0},
		"header longer than 4 KiB":               binary.AppendUvarint(nil, 4097),
		"header of 2^63 bytes":                   binary.AppendUvarint(nil, 1<<63),
		"varint of eleven bytes":                 bytes.Repeat([]byte{0x80}, 11),
		"varint beyond 64 bits":                  append(bytes.Repeat([]byte{0xff}, 9), 2),
		"varint with a needless byte":            append([]byte{header[0] | 0x80, 0}, body...),
		"version 2":                              swap("version\x01", "version\x02"),
		"no version":                             swap("version", "verison"),
		"two versions":                           with(append([]byte("\xa2\x67version\x01"), "\x67version\x01"...)),
		"no roots":                               with(append([]byte("\xa2\x65roots\x80"), "\x67version\x01"...)),
		"roots twice":                            with(append(slices.Clone(body[:len(body)-9]), body[1:len(body)-9]...)),
		"root is raw":                            swap("\x01\x71\x12\x20", "\x01\x55\x12\x20"),
		"root is not a link":                     swap("\xd8\x2a", "\xd8\x2b"),
		"header is a list":                       with([]byte{0x82, 1, 1}),
		"bytes after the header":                 with(append(slices.Clone(body), 0)),
		"section of no bytes":                    append(slices.Clone(header), 0),
		"section shorter than a CID":             append(slices.Clone(header), 35),
		"section longer than a block may be":     binary.AppendUvarint(slices.Clone(header), 2<<20+37),
		"section of 2^64-1 bytes":                binary.AppendUvarint(slices.Clone(header), 1<<64-1),
		"block with a CID version 2":             foreign("\x02\x71\x12\x20"),
		"block with a CID whose digest is cut":   append(slices.Clone(header), "\x05\x01\x55\x12\x20x"...),
		"block with a CID without a digest":      append(slices.Clone(header), "\x02\x01\x55"...),
		"block with a CID of endless varints":    append(slices.Clone(header), "\x0b"+strings.Repeat("\xff", 11)...),
		"block of no bytes, with another's CID":  append(append(slices.Clone(header), repo.CIDBytes), section[1:1+repo.CIDBytes]...),
		"a good block, then one byte of another": append(append(slices.Clone(header), section...), 40),
	}
	for name, car := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := repo.ReadCAR(bytes.NewReader(car), repo.CAROptions{}); !errors.Is(err, repo.ErrInvalid) {
				t.Fatalf("error %v", err)
			}
		})
	}
}

func TestReadCARHeaderForms(t *testing.T) {
	t.Parallel()
	a, b := newBlock([]byte("a")), newBlock([]byte("b"))
	link := cborLink(nil, a.cid)
	tests := map[string]string{
		"keys in the other order":        "\xa2\x67version\x01\x65roots\x81" + string(link),
		"a second root, which is unused": "\xa2\x65roots\x82" + string(cborLink(link, b.cid)) + "\x67version\x01",
		"a second root that is foreign":  "\xa2\x65roots\x82" + string(link) + "\xd8\x2a\x43abc\x67version\x01",
	}
	for name, h := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			car := append([]byte{byte(len(h))}, h...)
			if len(h) > 127 {
				t.Fatal("header needs a longer varint")
			}
			if c := mustRead(t, car, repo.CAROptions{}); c.Root() != a.cid {
				t.Fatalf("root %s", c.Root())
			}
		})
	}
}

func TestReadCARTransportErrors(t *testing.T) {
	t.Parallel()
	car := newWorld(20, 3).car(0)
	// A connection that ends before Content-Length gives this error: the transport's, not the peer's data's.
	for _, cause := range []error{io.ErrUnexpectedEOF, errors.New("connection reset")} {
		for cut := 0; cut < len(car); cut += 13 {
			r := io.MultiReader(bytes.NewReader(car[:cut]), iotest.ErrReader(cause))
			if _, err := repo.ReadCAR(r, repo.CAROptions{}); !errors.Is(err, cause) || errors.Is(err, repo.ErrInvalid) {
				t.Fatalf("cut at %d: %v", cut, err)
			}
		}
	}
	for cut := 100; cut < len(car); cut += 13 {
		cause := errors.New("connection reset")
		r := &farewell{b: car[:cut], err: cause}
		if _, err := repo.ReadCAR(r, repo.CAROptions{}); !errors.Is(err, cause) {
			t.Fatalf("error with the bytes before %d: %v", cut, err)
		}
	}
	if _, err := repo.ReadCAR(stuck{}, repo.CAROptions{}); !errors.Is(err, io.ErrNoProgress) {
		t.Fatalf("reader that gives nothing: %v", err)
	}
}

// farewell returns an error once, with its last bytes, and then EOF.
type farewell struct {
	b   []byte
	err error
}

func (f *farewell) Read(p []byte) (int, error) {
	n := copy(p, f.b)
	if f.b = f.b[n:]; len(f.b) > 0 {
		return n, nil
	}
	err := f.err
	f.err = io.EOF
	return n, err
}

// stuck returns nothing and no error, for ever.
type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

func TestReadCARReaders(t *testing.T) {
	t.Parallel()
	w := newWorld(50, 3)
	car := w.car(1)
	for name, r := range map[string]io.Reader{
		"one byte at a time":   iotest.OneByteReader(bytes.NewReader(car)),
		"half of what we ask":  iotest.HalfReader(bytes.NewReader(car)),
		"EOF with the last":    iotest.DataErrReader(bytes.NewReader(car)),
		"empty reads between":  iotest.OneByteReader(&hesitant{r: bytes.NewReader(car)}),
		"a string as a reader": strings.NewReader(string(car)),
	} {
		c, err := repo.ReadCAR(r, repo.CAROptions{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		checkWorld(t, c, w)
	}
}

// hesitant gives nothing on every other read.
type hesitant struct {
	r io.Reader
	n int
}

func (h *hesitant) Read(p []byte) (int, error) {
	if h.n++; h.n%2 == 0 {
		return 0, nil
	}
	return h.r.Read(p)
}

func TestReadCARLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(50, 3)
	car, blocks := w.car(1), len(w.blocks(0))
	read := func(o repo.CAROptions) error {
		c, err := repo.ReadCAR(bytes.NewReader(car), o)
		if err == nil {
			err = c.Close()
		}
		return err
	}
	for name, o := range map[string]repo.CAROptions{
		"bytes":  {BytesMax: int64(len(car)) - 1},
		"blocks": {BlocksMax: blocks - 1},
	} {
		if err := read(o); !errors.Is(err, repo.ErrInvalid) {
			t.Errorf("%s above the limit: %v", name, err)
		}
	}
	if err := read(repo.CAROptions{BytesMax: int64(len(car)), BlocksMax: blocks}); err != nil {
		t.Errorf("at the limits: %v", err)
	}
	for name, o := range map[string]repo.CAROptions{
		"no spool for what memory does not hold": {MemoryBytes: 1},
		"no spool when growth is refused":        {Grow: func(int64) bool { return false }},
		"negative memory":                        {MemoryBytes: -1},
		"bytes beyond what positions address":    {BytesMax: 1 << 40},
		"negative blocks":                        {BlocksMax: -1},
		"blocks beyond what the index can hold":  {BlocksMax: 1 << 30},
	} {
		if err := read(o); err == nil || errors.Is(err, repo.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadCARSpoolErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(50, 3)
	car := w.car(1)
	cause := errors.New("disk full")
	spool := &memSpool{writeErr: cause}
	_, err := repo.ReadCAR(bytes.NewReader(car), repo.CAROptions{MemoryBytes: 1, Spool: func() (repo.Spool, error) { return spool, nil }})
	if !errors.Is(err, cause) || errors.Is(err, repo.ErrInvalid) || spool.closed != 1 {
		t.Errorf("write error: %v, closed %d times", err, spool.closed)
	}
	_, err = repo.ReadCAR(bytes.NewReader(car), repo.CAROptions{MemoryBytes: 1, Spool: func() (repo.Spool, error) { return nil, cause }})
	if !errors.Is(err, cause) || errors.Is(err, repo.ErrInvalid) {
		t.Errorf("open error: %v", err)
	}
	spool = &memSpool{}
	c := mustRead(t, car, repo.CAROptions{MemoryBytes: 1, Spool: func() (repo.Spool, error) { return spool, nil }})
	spool.readErr = cause
	err = c.Walk(w.data, func(repo.Leaf) error { return nil })
	if !errors.Is(err, cause) || errors.Is(err, repo.ErrInvalid) {
		t.Errorf("read error: %v", err)
	}
	if _, _, err := c.Block(c.Root()); !errors.Is(err, cause) {
		t.Errorf("read error: %v", err)
	}
}

func TestCARClose(t *testing.T) {
	t.Parallel()
	w := newWorld(50, 3)
	spool := &memSpool{}
	c := mustRead(t, w.car(1), repo.CAROptions{MemoryBytes: 1, Spool: func() (repo.Spool, error) { return spool, nil }})
	for range 2 {
		if err := c.Close(); err != nil || spool.closed != 1 {
			t.Fatalf("Close: %v, spool closed %d times", err, spool.closed)
		}
	}
	if _, ok, err := c.Block(c.Root()); ok || err == nil {
		t.Error("Block of a closed CAR gave no error")
	}
	if err := c.Walk(w.data, func(repo.Leaf) error { return nil }); err == nil || errors.Is(err, repo.ErrInvalid) {
		t.Errorf("Walk of a closed CAR: %v", err)
	}
}

// TestChunkPoolReuse reads different CARs through one pool: what an earlier one left in a chunk
// must not show.
func TestChunkPoolReuse(t *testing.T) {
	t.Parallel()
	pool := repo.NewChunkPool(4 * repo.ChunkBytes)
	for i := range 20 {
		w := newWorld(100*i, uint64(i))
		c := mustRead(t, w.car(1), repo.CAROptions{Chunks: pool})
		checkWorld(t, c, w)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
