package store

import "github.com/cockroachdb/pebble/v2"

// SetFormat writes another format version.
func SetFormat(s *Store, v string) error {
	return s.db.Set(metaKey(metaFormat), []byte(v), pebble.Sync)
}

// Metrics are Pebble's.
func Metrics(s *Store) *pebble.Metrics { return s.db.Metrics() }

// Compact settles the store.
func Compact(s *Store) error {
	if err := s.db.Flush(); err != nil {
		return err
	}
	return nil
}
