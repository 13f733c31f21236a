package discover

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
	// Implied sources were not named by the operator: they discover repositories in mode full only.
	Implied bool
}

// String is KIND::URL.
func (s Source) String() string { return s.Kind + "::" + s.URL }

// list returns the name of a list of the source: its own if part is "", else the list of a host or
// collection.
func (s Source) list(part string) store.CrawlList {
	return store.CrawlList{Kind: s.Kind, URL: s.URL, Part: part}
}

// ParseSource returns the source of a kind at an address, in canonical form. An address must name
// its scheme, as for a firehose: a server is asked with TLS only if its address says so. An error
// repeats the bad value.
func ParseSource(kind, address string) (Source, error) {
	if !slices.Contains(SourceKinds(), kind) {
		return Source{}, fmt.Errorf("unknown kind %.80q, known: %s",
			kind, strings.Join(SourceKinds(), ", "))
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

// exact returns the signals that name one collection. The list of a collection shows nothing about
// repositories of other collections.
func exact(f *filter.Filter) []string {
	return slices.DeleteFunc(f.Signals(), func(s string) bool { return strings.HasSuffix(s, "*") })
}
