package hosts

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"cistern/backfill/pace"
	"cistern/ingest/identity"
	"cistern/store"
)

// kindOf returns the kind of request by which hosts count the XRPC method of a URL.
func kindOf(u *url.URL) pace.Kind {
	if strings.TrimPrefix(u.Path, "/xrpc/") == "com.atproto.sync.getRepo" {
		return pace.Fetch
	}
	return pace.Query
}

// checkRedirect is an http.Client.CheckRedirect. A redirect must not cause a request to a host that
// is banned or parked, or more requests than its windows allow. A refused redirect counts as a
// failure of the redirecting host.
func (t *Table) checkRedirect(req *http.Request, via []*http.Request) error {
	err := identity.CheckRedirect(req, via)
	if err == nil {
		err = t.spendElsewhere(req)
	}
	if err != nil {
		// Not a BusyError: the redirecting host would be asked again at once.
		return fmt.Errorf("%w to %s: %v", ErrRedirect, Clean(req.URL.Redacted()), err)
	}
	return nil
}

// spendElsewhere is spend for the host of a request. An unknown host is not added to the table,
// because names cost an attacker nothing.
func (t *Table) spendElsewhere(req *http.Request) error {
	origin, err := identity.ParseOrigin(req.URL.Scheme + "://" + req.URL.Host)
	if err != nil {
		return err
	}
	to, err := t.store.HostNamed(identity.HostOf(origin))
	if errors.Is(err, store.ErrNotFound) {
		if _, banned := t.opts.Rules.Of(identity.HostOf(origin)); banned {
			return ErrBanned
		}
		return nil
	}
	if err != nil {
		return err
	}
	t.mu.Lock()
	h := t.hostOf(to.ID)
	t.mu.Unlock()
	if h == nil {
		return errors.New("too many hosts are in use")
	}
	return t.spend(req.Context(), h, kindOf(req.URL))
}

// Clean makes text from a host fit for rows and logs.
func Clean(s string) string {
	const textMax = 120
	if len(s) > textMax {
		s = s[:textMax]
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c == '\uFFFD' {
			return -1
		}
		return c
	}, s)
}
