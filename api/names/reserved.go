package names

import (
	"net/netip"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// privateTLDs are top-level domains that the public DNS does not have and that private networks
// use: .test (RFC 6761) for development, the others without a standard.
var privateTLDs = map[string]bool{"test": true, "corp": true, "home": true, "lan": true,
	"mail": true, "intranet": true, "private": true}

// reserved returns why a handle is not looked up, "" if it may be (invariant 2).
func reserved(handle syntax.Handle, allowPrivate bool) string {
	name := handle.String()
	tld := name[strings.LastIndexByte(name, '.')+1:]
	switch {
	case !handle.AllowedTLD(): // the protocol forbids them
		return "names below ." + tld + " cannot be handles"
	case privateTLDs[tld] && !allowPrivate:
		return "." + tld + " is not a public domain"
	}
	return ""
}

// reservedHost is like reserved, for a host that a redirect or a did:web names.
func reservedHost(host string) string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if _, err := netip.ParseAddr(host); err == nil {
		return "" // the transport checks addresses
	}
	if !strings.Contains(host, ".") {
		return "a name without a dot is not public"
	}
	return reserved(syntax.Handle(host), false)
}

// siteOf returns the part of a name that one owner is likely to control: its last two labels, below
// which the owner can make up names without end.
func siteOf(name string) string {
	last := strings.LastIndexByte(name, '.')
	return name[strings.LastIndexByte(name[:max(last, 0)], '.')+1:]
}
