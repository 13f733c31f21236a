package atproto

import (
	"cistern/api/names"
	"cistern/store"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// pageBytesMax ends a page of listRecords early: limit 100 × 14 MiB would be 1.4 GiB.
	pageBytesMax = 8 << 20
	// collectionsMax bounds the collections of listReposByCollection: each costs a seek at every
	// step.
	collectionsMax = 32
)

// Options of New.
type Options struct {
	// Store is the store that is served. Required.
	Store *store.Store
	// Refused counts records without a JSON form. Required.
	Refused prometheus.Counter
	// Hosts returns a function that reports the current status of a host. Required.
	Hosts func() func(*store.Host) HostStatus
	// Names looks up handles, and DIDs that the store does not hold. Nil: nothing is looked up, and
	// handles are refused.
	Names *names.Resolver
}

// Records answers the queries of com.atproto.
type Records struct {
	store   *store.Store
	refused prometheus.Counter
	hosts   func() func(*store.Host) HostStatus
	names   *names.Resolver // nil: nothing is looked up
}

// New returns the methods of a store.
func New(o Options) *Records { return &Records{o.Store, o.Refused, o.Hosts, o.Names} }
