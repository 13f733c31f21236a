package store_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/prometheus/client_golang/prometheus"
)

// TestImportTablesAreSynced: a table is written out while it grows, not when it is closed.
func TestImportTablesAreSynced(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	syncs := map[string]int{}
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
			mu.Lock()
			defer mu.Unlock()
			if strings.Contains(op.Path, "import/") {
				syncs[op.Path]++
			}
		}
		return nil
	}))
	s := storetest.Open(t, store.Options{FS: fs, SmallBytes: 1})
	rng, m := rand.New(rand.NewPCG(1, 1)), storetest.Records{}
	for i := range 400 { // 6.4 MB that do not compress
		record := make([]byte, 16<<10)
		for j := range record {
			record[j] = byte(rng.Uint32())
		}
		m[fmt.Sprintf("app.test.a/%03d", i)] = append([]byte{0x59, 0x40, 0}, record...)
	}
	im := m.Import(add(t, s, storetest.DID(1)), storetest.Rev(1))
	im.Done = func(_ store.Repo, err error) {
		if err != nil {
			t.Error(err)
		}
	}
	if err := s.Import(t.Context(), im); err != nil {
		t.Fatal(err)
	}
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
	most := 0
	for _, n := range syncs {
		most = max(most, n)
	}
	if most < 5 {
		t.Errorf("syncs of the import's tables: %v", syncs)
	}
}

// TestEngineFormat: Pebble's files have the format that this binary chose. A library that knows a
// newer one does not raise it. The number changes only together with a line in CHANGELOG.md: older
// binaries cannot read a newer format.
func TestEngineFormat(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	storetest.Open(t, store.Options{FS: fs, Dir: "db"})
	desc, err := pebble.Peek("db", fs)
	if err != nil || desc.FormatMajorVersion != store.EngineFormat || store.EngineFormat != 24 {
		t.Errorf("%+v, want format %d: %v", desc, store.EngineFormat, err)
	}
}

// TestSlowDisk: on the operating system's file system, operations that hang are counted and logged.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	reg := prometheus.NewRegistry()
	s, err := store.Open(store.Options{Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(&text, nil)), Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		storetest.Check(t, s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if !store.WatchesDisk(s) {
		t.Error("the disk is not watched")
	}
	store.DiskSlow(s, vfs.DiskSlowInfo{Path: "000123.log", OpType: vfs.OpTypeSync, Duration: 7 * time.Second})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := 0.0
	for _, f := range families {
		if f.GetName() == "cistern_store_disk_slow_total" {
			counted = f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	if counted != 1 {
		t.Errorf("counted %v", counted)
	}
	if got := text.String(); !strings.Contains(got, "disk is slow") || !strings.Contains(got, "000123.log") || !strings.Contains(got, "seconds=7") {
		t.Errorf("log: %s", got)
	}
}
