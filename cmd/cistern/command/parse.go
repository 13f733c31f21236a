package command

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"cistern/filter"
	"cistern/ingest/identity"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// The functions below read the value of an option, or return a function that does. Their errors say
// which values are valid; Load prefixes the option and the rejected value.

// Text takes any text as it is.
func Text(s string) (string, error) { return s, nil }

// ParseSwitch reads true or false, also in the other forms of Go.
func ParseSwitch(s string) (bool, error) {
	on, err := strconv.ParseBool(s)
	if err != nil {
		return false, errors.New("want true or false")
	}
	return on, nil
}

// Choice returns a function that reads a value with parse if it is among names, and refuses others.
func Choice[T any](parse func(string) (T, error), names ...string) func(string) (T, error) {
	return func(s string) (value T, err error) {
		if !slices.Contains(names, s) {
			return value, fmt.Errorf("want one of %s", strings.Join(names, ", "))
		}
		return parse(s)
	}
}

// Number returns a function that reads a whole number from least to most.
func Number(least, most uint64) func(string) (uint64, error) {
	return func(s string) (uint64, error) {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil || n < least || n > most {
			return 0, fmt.Errorf("want a number from %d to %d", least, most)
		}
		return n, nil
	}
}

// ParseURL reads a base URL of http or https, and drops a trailing slash.
func ParseURL(s string) (string, error) {
	origin, path, err := identity.ParseBase(s)
	if err == nil && strings.HasPrefix(strings.ToLower(s), "ws") {
		err = errors.New("is not http or https")
	}
	if err != nil {
		return "", fmt.Errorf("want a URL like https://example.com; this one %w", err)
	}
	return origin + strings.TrimRight(path, "/"), nil
}

// ParsePattern reads a collection, or all collections below one, such as app.bsky.*.
func ParsePattern(s string) (string, error) {
	if _, err := filter.Compile(filter.Config{Collections: []string{s}}); err != nil {
		return "", errors.New("want a collection such as app.bsky.feed.post or app.bsky.*")
	}
	return s, nil
}

// ParseDID reads the DID of an account.
func ParseDID(s string) (string, error) {
	if _, err := syntax.ParseDID(s); err != nil {
		return "", errors.New("want a DID like did:plc:ewvi7nxzyoun6zhxrhs64oiz")
	}
	return s, nil
}

// ParseAge reads a duration as Go does, or a number of days, such as 1.5d.
func ParseAge(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseFloat(days, 64); err == nil && n >= 0 && n < 36500 {
			return time.Duration(n * 24 * float64(time.Hour)), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return d, nil
	}
	return 0, errors.New("want a duration like 72h or 30d, or 0 for no limit")
}

// ParseListen reads the address of a listener, host:port. The host may be missing.
func ParseListen(s string) (string, error) {
	_, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return "", errors.New("want host:port, :port for all addresses, or port 0 for any free one")
	}
	return s, nil
}

// ParseServer returns the base URL of a running server. It reads a URL, or an address as
// ParseListen does; an address without a host is one of this machine.
func ParseServer(address string) (string, error) {
	if strings.Contains(address, "://") {
		return ParseURL(address)
	}
	if _, err := ParseListen(address); err != nil {
		return "", errors.New("want the host:port of a daemon's listener, or its URL")
	}
	if strings.HasPrefix(address, ":") {
		address = "127.0.0.1" + address
	}
	return "http://" + address, nil
}

// withoutUser returns a value in a form that an error may show: the text before the host of a URL
// may be a password.
func withoutUser(value string) string {
	scheme, rest, _ := strings.Cut(value, "://")
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		return scheme + "://…" + rest[at:]
	}
	return value
}
