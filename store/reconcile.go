package store

import (
	"errors"
	"fmt"
)

// Reconciliation states how far the listing of a host or relay was compared with our rows after
// missed events. The zero value requests the comparison; one that is under way starts over.
type Reconciliation struct {
	Stage  ReconcileStage `cbor:"1,keyasint,omitempty"`
	Cursor string         `cbor:"2,keyasint,omitempty"` // of the next page, in ReconcileReading
}

// ReconcileStage is the stage of a reconciliation.
type ReconcileStage uint8

// The stages of a reconciliation.
const (
	// ReconcileRequested begins, or begins again, with the first page.
	ReconcileRequested ReconcileStage = iota
	// ReconcileReading reads the page that Cursor names, "" for the first.
	ReconcileReading
	// ReconcileListed has read all pages. Repositories that none of them named are not queued yet.
	ReconcileListed

	reconcileStages
)

// PutReconciliation writes the state of the comparison with the listing at a base URL.
func (b *control) PutReconciliation(url string, r Reconciliation) {
	if url == "" {
		b.fail(errors.New("a reconciliation has no URL"))
		return
	}
	b.put(reconcileKey(b.key[:0], url), r)
}

// DropReconciliation ends the comparison with a listing.
func (b *control) DropReconciliation(url string) { b.delete(reconcileKey(b.key[:0], url)) }

// LockReconciliation gives the caller the sole right to write the reconciliation of a base URL
// until unlock.
func (s *Store) LockReconciliation(url string) (unlock func()) {
	return s.Lock(string(reconcileKey(nil, url)))
}

// Reconciliation returns the reconciliation of a base URL as last written; ok is false if none is
// requested or under way.
func (s *Store) Reconciliation(url string) (r Reconciliation, ok bool, err error) {
	err = get(s.db, reconcileKey(nil, url), func(v []byte) error {
		r, err = s.parseReconciliation(v)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return Reconciliation{}, false, nil
	}
	if err != nil {
		return Reconciliation{}, false, fmt.Errorf("reconciliation of %s: %w", url, err)
	}
	return r, true, nil
}

// Reconciliations returns all of them, by base URL.
func (s *Store) Reconciliations() (map[string]Reconciliation, error) {
	all := map[string]Reconciliation{}
	lower, upper := []byte{spaceReconcile}, spaceEnd(spaceReconcile)
	err := scan(s.db, lower, upper, func(key, value []byte) (bool, error) {
		url, err := parseReconcileKey(key)
		if err != nil {
			return false, err
		}
		if all[url], err = s.parseReconciliation(value); err != nil {
			return false, fmt.Errorf("reconciliation of %s: %w", url, err)
		}
		return true, nil
	})
	return all, err
}

func (s *Store) parseReconciliation(v []byte) (r Reconciliation, err error) {
	err = s.codec.decode(v, &r)
	if err == nil && (r.Stage >= reconcileStages || r.Stage != ReconcileReading && r.Cursor != "") {
		err = fmt.Errorf("stage %d with cursor %q: %w", r.Stage, r.Cursor, ErrCorrupt)
	}
	return r, err
}

// reconcileHostsV1 requests the reconciliation of all known hosts.
type reconcileHostsV1 struct {
	Relay string `cbor:"1,keyasint"` // base URL of the relay whose events were missed
	// Begun means that the requests of single hosts have begun. A new PutReconcileHosts sets it to
	// false: every host must be requested again.
	Begun bool `cbor:"2,keyasint,omitempty"`
}

// PutReconcileHosts requests that the listings of all known hosts be compared, since events of a
// relay, given by its base URL, were missed. The caller holds LockReconcileHosts until the commit.
func (b *control) PutReconcileHosts(relay string) {
	b.put(metaKey(metaReconcileHosts), reconcileHostsV1{Relay: relay})
}

// LockReconcileHosts gives the caller the sole right to write the request of all hosts until
// unlock. It is taken after LockReconciliation.
func (s *Store) LockReconcileHosts() (unlock func()) {
	return s.Lock(string(metaKey(metaReconcileHosts)))
}

// BeginReconcileHosts returns the relay of the last PutReconcileHosts; ok is false if there is no
// request. The caller then requests the reconciliation of every known host, and calls
// EndReconcileHosts.
func (s *Store) BeginReconcileHosts() (relay string, ok bool, err error) {
	defer s.LockReconcileHosts()()
	row, ok, err := s.reconcileHosts()
	if err != nil || !ok || row.Begun {
		return row.Relay, ok, err
	}
	row.Begun = true
	b := s.NewBatch()
	b.put(metaKey(metaReconcileHosts), row)
	// After a crash between here and EndReconcileHosts, the request begins again.
	return row.Relay, true, b.CommitSync()
}

// EndReconcileHosts ends the request of PutReconcileHosts. A request made since
// BeginReconcileHosts stays.
func (s *Store) EndReconcileHosts() error {
	defer s.LockReconcileHosts()()
	row, ok, err := s.reconcileHosts()
	if err != nil || !ok || !row.Begun {
		return err
	}
	b := s.NewBatch()
	b.delete(metaKey(metaReconcileHosts))
	return b.CommitSync()
}

// ReconcileHosts returns the relay of the last PutReconcileHosts; ok is false if there is no
// request.
func (s *Store) ReconcileHosts() (relay string, ok bool, err error) {
	row, ok, err := s.reconcileHosts()
	return row.Relay, ok, err
}

func (s *Store) reconcileHosts() (row reconcileHostsV1, ok bool, err error) {
	ok, err = s.metaRow(s.db, metaReconcileHosts, &row)
	return row, ok, err
}
