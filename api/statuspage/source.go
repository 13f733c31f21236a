package statuspage

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"cistern/ingest/identity"
)

// sourcesShown bounds the sources of a Status.
const sourcesShown = 20

// Following is a source of the firehose.
type Following struct {
	URL              string
	PDS              bool
	Direct           bool // added by Cistern, because relays leave out events of its accounts
	Running, Failing bool
	Lag              time.Duration
}

// Firehose is the state of all sources.
type Firehose struct {
	Sources   int `json:"sources"`
	Connected int `json:"connected"`
	// LagSeconds is the lag of the connected source that is furthest behind.
	LagSeconds float64 `json:"lag_seconds"`
	// Items are those that fail and those furthest behind, at most sourcesShown.
	Items []Source `json:"items"`
}

// Source is a source as visitors see it.
type Source struct {
	Name       string  `json:"name,omitempty"` // of its host; absent if that is private
	Kind       string  `json:"kind"`           // relay or pds
	State      string  `json:"state"`          // connected, failing or connecting
	LagSeconds float64 `json:"lag_seconds"`
}

// firehose returns the state of sources.
func firehose(all []Following) Firehose {
	h := Firehose{Sources: len(all), Items: []Source{}}
	for _, f := range all {
		if f.Running {
			h.Connected++
			h.LagSeconds = max(h.LagSeconds, seconds(f.Lag))
		}
	}
	shown := slices.Clone(all)
	slices.SortStableFunc(shown, func(a, b Following) int {
		if a.Failing != b.Failing {
			if a.Failing {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(b.Lag, a.Lag), cmp.Compare(a.URL, b.URL))
	})
	for _, f := range shown[:min(len(shown), sourcesShown)] {
		h.Items = append(h.Items, sourceOf(f))
	}
	return h
}

func sourceOf(f Following) Source {
	kind, state := "relay", "connecting"
	if f.PDS {
		kind = "pds"
	}
	switch {
	case f.Running:
		state = "connected"
	case f.Failing:
		state = "failing"
	}
	return Source{Name: publicHost(f.URL), Kind: kind, State: state, LagSeconds: seconds(f.Lag)}
}

// seconds rounds to tenths.
func seconds(d time.Duration) float64 { return float64(d.Milliseconds()/100) / 10 }

// privateDomains are the ends of names that only a private network knows (RFC 6761, RFC 6762,
// RFC 8375).
var privateDomains = []string{".localhost", ".local", ".internal", ".intranet", ".lan", ".corp",
	".private", ".home", ".home.arpa"}

// publicHost returns the host of a URL, without user and path, "" if it is an address or a name
// that only a private network knows.
func publicHost(url string) string {
	host := identity.HostOf(url)
	host = host[strings.LastIndexByte(host, '@')+1:]
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.Trim(name, "[]."))
	if addr, err := netip.ParseAddr(name); err == nil {
		if identity.CheckPublic(addr) != nil {
			return ""
		}
		return host
	}
	if last := name[strings.LastIndexByte(name, '.')+1:]; strings.Trim(last, "0123456789") == "" {
		return "" // an address in a form that few programs read, such as 10.1
	}
	private := func(end string) bool { return strings.HasSuffix(name, end) }
	if !strings.Contains(name, ".") || slices.ContainsFunc(privateDomains, private) {
		return ""
	}
	return host
}
