package backfill

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"cistern/filter"
	"cistern/ingest/identity"
	"cistern/store"
)

// Kinds of crawl sources.
const (
	// SourceHosts lists the hosts of a relay, and then the repositories of each of them.
	SourceHosts = "hosts"
	// SourceRepos lists the repositories of a relay or PDS.
	SourceRepos = "repos"
	// SourceCollection lists the repositories that hold a collection, for each signal that names one.
	SourceCollection = "collection"
)

// SourceKinds are the kinds there are.
func SourceKinds() []string { return []string{SourceHosts, SourceRepos, SourceCollection} }

// Source is where repositories to follow are discovered.
type Source struct {
	Kind string // SourceHosts, SourceRepos or SourceCollection
	URL  string // origin: scheme, host and port
	// Implied sources were not asked for by name: they discover nothing but in mode full.
	Implied bool
}

// String is KIND::URL.
func (s Source) String() string { return s.Kind + "::" + s.URL }

// ParseSource returns the source of a kind at an address, in canonical form. An address must name
// its scheme, as for a firehose: a server is asked with TLS only if its address says so. An error
// repeats the bad value.
func ParseSource(kind, address string) (Source, error) {
	if !slices.Contains(SourceKinds(), kind) {
		return Source{}, fmt.Errorf("unknown kind %.80q, known: %s", kind, strings.Join(SourceKinds(), ", "))
	}
	origin, path, err := identity.ParseBase(address)
	if err == nil && path != "" && path != "/" {
		err = errors.New("has a path: want only scheme, host and port")
	}
	if err != nil {
		return Source{}, fmt.Errorf("%.200q %w", address, err)
	}
	return Source{Kind: kind, URL: origin}, nil
}

func (s Source) validate() error {
	p, err := ParseSource(s.Kind, s.URL)
	if err == nil && p.URL != s.URL {
		err = fmt.Errorf("%q is not in the form %q", s.URL, p.URL)
	}
	if err != nil {
		return fmt.Errorf("crawl source %q: %w", s, err)
	}
	return nil
}

// exact are the signals that name a collection. A list of one collection's repositories says nothing of the others.
func exact(f *filter.Filter) []string {
	return slices.DeleteFunc(f.Signals(), func(s string) bool { return strings.HasSuffix(s, "*") })
}

// discovers says whether the filter in force discovers what was passed over, or forgotten, by any since that version.
func (r *Runner) discovers(f store.FilterVersion, since uint32) (bool, error) {
	if f.Readmitted > since {
		return true, nil
	}
	for ; since < f.Version; since++ {
		g, err := r.store.FilterAt(since)
		if err != nil {
			return false, ours(err)
		}
		if wider(f.Filter, g) {
			return true, nil
		}
	}
	return false, nil
}

// wider says whether a filter discovers what another, g, passes over.
func wider(f, g *filter.Filter) bool {
	switch {
	case f.Full() || g.Full():
		return !g.Full()
	case len(f.Signals()) == 0:
		return len(g.Signals()) > 0 // an explicit list is followed whole then
	}
	return !includes(g.Signals(), f.Signals())
}
