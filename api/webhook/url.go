package webhook

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"cistern/ingest/identity"
)

// CheckURL returns the check of the URL of a webhook. It wants https and a host that is not a
// private address, unless private addresses are allowed; names are looked up with each request. Its
// error continues a sentence that begins with the URL.
func CheckURL(allowPrivate bool) func(string) error {
	return func(text string) error {
		if len(text) > urlBytesMax {
			return fmt.Errorf("has more than %d bytes", urlBytesMax)
		}
		u, err := url.Parse(text)
		switch {
		case err != nil:
			return errors.New("does not parse as a URL")
		case u.Scheme != "https" && (u.Scheme != "http" || !allowPrivate):
			return errors.New("is not https (http needs --allow-private)")
		case u.User != nil:
			return errors.New("has a user name: put what the endpoint needs into the path")
		case strings.Contains(text, "#"):
			return errors.New("has a fragment, which is not sent")
		}
		origin, _, err := identity.ParseBase(u.Scheme + "://" + u.Host)
		if err != nil {
			return err
		}
		if _, host, _ := strings.Cut(origin, "://"); !allowPrivate {
			return checkLiteral(host)
		}
		return nil
	}
}

// checkLiteral refuses a host that is an address which is not public.
func checkLiteral(host string) error {
	if ap, err := netip.ParseAddrPort(host); err == nil {
		return identity.CheckPublic(ap.Addr())
	}
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return identity.CheckPublic(addr)
	}
	return nil
}
