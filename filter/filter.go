package filter

import (
	"errors"
	"fmt"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Filter says which repositories are followed. The zero value follows only what is asked for by name.
type Filter struct {
	full bool
	// signals are whole collections, and beginnings with the dot they end at, which no collection has.
	signals map[string]struct{}
}

// New makes a filter that follows every repository (full), or those found with a record in a
// collection that one of the signals names: an NSID (app.bsky.feed.post) or a prefix at a dot
// (app.bsky.*). The error names every signal that is neither.
func New(full bool, signals []string) (*Filter, error) {
	f := &Filter{full: full, signals: make(map[string]struct{}, len(signals))}
	var errs []error
	for _, s := range signals {
		key, err := parse(s)
		errs = append(errs, err)
		f.signals[key] = struct{}{}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return f, nil
}

// parse gives the text under which a signal is looked up.
func parse(signal string) (string, error) {
	prefix, wild := strings.CutSuffix(signal, "*")
	if !wild {
		if _, err := syntax.ParseNSID(signal); err != nil {
			return "", fmt.Errorf("signal %.400q is neither an NSID nor the beginning of one with .* at its end", signal)
		}
		return signal, nil
	}
	// It begins an NSID if a letter completes it, or two between which a dot stands (app.*).
	_, short := syntax.ParseNSID(prefix + "a")
	_, long := syntax.ParseNSID(prefix + "a.a")
	if !strings.HasSuffix(prefix, ".") || (short != nil && long != nil) {
		return "", fmt.Errorf("signal %.400q: what stands before the star does not begin an NSID or does not end at a dot", signal)
	}
	return prefix, nil
}

// Full says whether every repository is followed.
func (f *Filter) Full() bool { return f.full }

// Signal says whether a record of this collection makes its repository one to follow.
func (f *Filter) Signal(collection []byte) bool {
	if len(f.signals) == 0 || len(collection) == 0 {
		return false
	}
	// The last byte is not looked at as a dot: a prefix stands before something.
	for i, b := range collection[:len(collection)-1] {
		if b != '.' {
			continue
		}
		if _, ok := f.signals[string(collection[:i+1])]; ok {
			return true
		}
	}
	if collection[len(collection)-1] == '.' {
		return false
	}
	_, ok := f.signals[string(collection)]
	return ok
}
