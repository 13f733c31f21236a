package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
)

// FormatVersion is the number of the layout described in keys.go and values.go. It rises with every
// change of a key or of a value that an older version would misread or lose, and CHANGELOG.md then
// states under "On-disk format" what an operator has to do. A store of another version is refused.
const FormatVersion = 8

// engineFormat is the format of Pebble's own files. A newer library does not raise it: that takes a
// change here, and a line in CHANGELOG.md, since older binaries cannot open the store afterwards.
const engineFormat = pebble.FormatValueSeparation

// ephemeralFormat follows the number in the row of an ephemeral store: a version that does not know
// the mode refuses the store.
const ephemeralFormat = " ephemeral"

const (
	metaFormat  = "format"
	metaEpoch   = "epoch"
	metaNext    = "next"    // next event id
	metaTime    = "time"    // time of the newest event, unix microseconds
	metaTail    = "tail"    // oldest event id kept
	metaOrdinal = "ordinal" // next ordinal
	metaEnqueue = "enqueue" // enqueue ids below this may be in use
	metaHost    = "host"    // next host id
	metaAges    = "ages"    // agesV1
	metaFilter  = "filter"  // inForceV1

	metaRefilter       = "refilter"        // RefilterCursor
	metaReconcileHosts = "reconcile_hosts" // reconcileHostsV1
	metaTraffic        = "traffic"         // trafficV1
	metaVerify         = "verify"          // VerifyCursor
	metaCopies         = "copies"          // copiesV1
)

// metaRow decodes a row of meta into v; ok is false if the row does not exist.
func (s *Store) metaRow(r reader, name string, v any) (ok bool, err error) {
	err = get(r, metaKey(name), func(b []byte) error { return s.codec.decode(b, v) })
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("meta %s: %w", name, err)
	}
	return true, nil
}

func (s *Store) meta(r reader, name string) (string, error) {
	var v string
	err := get(r, metaKey(name), func(b []byte) error { v = string(b); return nil })
	return v, err
}

// metaNumber reads a number; absent is fallback.
func (s *Store) metaNumber(r reader, name string, fallback uint64) (uint64, error) {
	v, err := s.meta(r, name)
	if errors.Is(err, ErrNotFound) {
		return fallback, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("meta %s is %q: %w", name, v, ErrCorrupt)
	}
	return n, nil
}

func setMetaNumber(b *pebble.Batch, name string, n uint64) error {
	return b.Set(metaKey(name), strconv.AppendUint(nil, n, 10), nil)
}

// loadFormat refuses a format it does not know and gives a new store its format and epoch.
func (s *Store) loadFormat() error {
	text, err := s.meta(s.db, metaFormat)
	v, ephemeral := strings.CutSuffix(text, ephemeralFormat)
	switch {
	case errors.Is(err, ErrNotFound):
		return s.writeFormat()
	case err != nil:
		return err
	case v != strconv.Itoa(FormatVersion):
		return fmt.Errorf("%w %q: this version of Cistern reads format %d only; delete the directory "+
			"and let the daemon fetch the repositories again, or run the version that wrote it",
			ErrFormat, text, FormatVersion)
	case ephemeral != s.opts.Ephemeral && !s.opts.ReadOnly && !s.opts.MustExist:
		return modeError(ephemeral)
	}
	s.ephemeral = ephemeral
	s.epoch, err = s.meta(s.db, metaEpoch)
	return err
}

// modeError returns the error for a store whose mode is not the wanted one.
func modeError(ephemeral bool) error {
	if ephemeral {
		return fmt.Errorf("%w: this one keeps events only: start with --ephemeral, or with another "+
			"--data", ErrMode)
	}
	return fmt.Errorf("%w: this one keeps records: start without --ephemeral, or with another "+
		"--data", ErrMode)
}

// Ephemeral reports whether the store is ephemeral (invariant 16).
func (s *Store) Ephemeral() bool { return s.ephemeral }

// newEpoch returns an epoch that no other log has.
func newEpoch() (string, error) {
	var id [8]byte
	_, err := rand.Read(id[:])
	return hex.EncodeToString(id[:]), err
}

func (s *Store) writeFormat() error {
	it, err := s.db.NewIter(nil)
	if err != nil {
		return err
	}
	empty := !it.First()
	if err := it.Close(); err != nil {
		return err
	}
	if !empty || s.opts.ReadOnly {
		return fmt.Errorf("%w: not a Cistern store", ErrFormat)
	}
	if s.epoch, err = newEpoch(); err != nil {
		return err
	}
	format := strconv.Itoa(FormatVersion)
	if s.ephemeral = s.opts.Ephemeral; s.ephemeral {
		format += ephemeralFormat
	}
	b := s.db.NewBatch()
	return errors.Join(b.Set(metaKey(metaFormat), []byte(format), nil),
		b.Set(metaKey(metaEpoch), []byte(s.epoch), nil), s.apply(b, pebble.Sync))
}

// Epoch identifies this log. A new store has another one, and so has a store that was restored from
// a backup, so that a cursor of the old log is recognised as foreign.
func (s *Store) Epoch() string { return s.epoch }
