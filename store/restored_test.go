package store_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cistern/store"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestReadRestoredLong: a file RESTORED that is longer than it may be is refused, also if its
// beginning could be read.
func TestReadRestoredLong(t *testing.T) {
	t.Parallel()
	const most = 64 << 10
	for n, ok := range map[int]bool{most: true, most + 1: false, most + 1000: false} {
		dir := t.TempDir()
		text := append([]byte(`{"generation":"g","complete":true}`), bytes.Repeat([]byte(" "), n)...)[:n]
		if n > most {
			text[n-1] = 'x' // behind what may be read
		}
		if err := os.WriteFile(filepath.Join(dir, store.RestoredName), text, 0o600); err != nil {
			t.Fatal(err)
		}
		r, found, err := store.ReadRestored(dir)
		if ok && (err != nil || !found || !r.Complete) {
			t.Errorf("%d bytes: %+v, %t, %v", n, r, found, err)
		}
		if !ok && (err == nil || found || !strings.Contains(err.Error(), "more than the 65536 bytes")) {
			t.Errorf("%d bytes: %+v, %t, %v", n, r, found, err)
		}
		if s, err := store.Open(store.Options{Dir: dir}); !ok && err == nil {
			t.Errorf("%d bytes: the store opens", n)
			_ = s.Close()
		} else if err == nil {
			_ = s.Close()
		}
	}
}

// FuzzRestored reads files RESTORED.
func FuzzRestored(f *testing.F) {
	f.Add([]byte(`{"source":"s3://b/","generation":"20260101T000000.000Z-0a","manifest":"00","complete":true}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 8<<10 {
			return // JSON may write six bytes for one
		}
		files := vfs.NewMem()
		file, err := files.Create(store.RestoredName, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		_, err = file.Write(text)
		if err = errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
		r, ok, err := store.ReadRestoredOn(files, "")
		if err != nil {
			return
		}
		if err := r.WriteOn(files, ""); err != nil || !ok {
			t.Fatal(ok, err)
		}
		if again, ok, err := store.ReadRestoredOn(files, ""); again != r || !ok || err != nil {
			t.Errorf("%q: %+v, then %+v, %v", text, r, again, err)
		}
	})
}
