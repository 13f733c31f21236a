package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"cistern/backfill/discover"
	"cistern/backfill/pace"
	"cistern/filter"
	"cistern/ingest/firehose"
	"cistern/ingest/identity"
	"cistern/store"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/dustin/go-humanize"
	"github.com/klauspost/compress/zstd"
)

// The functions below read the value of an option. Their errors state which values are valid; load
// prefixes the option and the rejected value.

func text(s string) (string, error) { return s, nil }

func parseSwitch(s string) (bool, error) {
	on, err := strconv.ParseBool(s)
	if err != nil {
		return false, errors.New("want true or false")
	}
	return on, nil
}

// choice parses values only if they are among names.
func choice[T any](parse func(string) (T, error), names ...string) func(string) (T, error) {
	return func(s string) (value T, err error) {
		if !slices.Contains(names, s) {
			return value, fmt.Errorf("want one of %s", strings.Join(names, ", "))
		}
		return parse(s)
	}
}

func parseNumber(least, most uint64) func(string) (uint64, error) {
	return func(s string) (uint64, error) {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil || n < least || n > most {
			return 0, fmt.Errorf("want a number from %d to %d", least, most)
		}
		return n, nil
	}
}

func parseShare(s string) (int, error) {
	n, err := parseNumber(1, 100)(strings.TrimSuffix(s, "%"))
	return int(n), err
}

func parseLevel(s string) (level slog.Level, err error) {
	err = level.UnmarshalText([]byte(s))
	return level, err
}

func parseToken(s string) (string, error) {
	if len(s) < 8 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errors.New("want at least 8 printable ASCII characters without spaces")
	}
	return s, nil
}

// dictionaryBytesMax bounds the dictionary of Jetstream, which has 112,640 bytes.
const dictionaryBytesMax = 1 << 20

// parseDictionary reads the file of a zstd dictionary.
func parseDictionary(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, dictionaryBytesMax+1))
	switch {
	case err != nil:
		return nil, err
	case len(b) > dictionaryBytesMax:
		return nil, fmt.Errorf("longer than %d bytes", dictionaryBytesMax)
	}
	if _, err := zstd.InspectDictionary(b); err != nil {
		return nil, fmt.Errorf("not a zstd dictionary: %w", err)
	}
	return b, nil
}

func parseCrawl(s string) (discover.Source, error) {
	kind, origin, ok := strings.Cut(s, "::")
	if !ok {
		return discover.Source{}, errors.New("want KIND::URL, such as repos::https://example.com")
	}
	return discover.ParseSource(kind, origin)
}

func parseSource(pds bool) func(string) (store.Source, error) {
	return func(s string) (store.Source, error) {
		src, err := firehose.ParseSource(s, pds)
		if err != nil { // without the value, which load names
			err = fmt.Errorf("want a URL like https://example.com; this one %w", errors.Unwrap(err))
		}
		return src, err
	}
}

// parseURL reads a base URL and drops a trailing slash.
func parseURL(s string) (string, error) {
	origin, path, err := identity.ParseBase(s)
	if err == nil && strings.HasPrefix(strings.ToLower(s), "ws") {
		err = errors.New("is not http or https")
	}
	if err != nil {
		return "", fmt.Errorf("want a URL like https://example.com; this one %w", err)
	}
	return origin + strings.TrimRight(path, "/"), nil
}

func parseBan(s string) (pace.Rule, error) {
	glob, err := pace.ParseGlob(s)
	return pace.Rule{Glob: glob, Banned: true}, err
}

func parsePattern(s string) (string, error) {
	if _, err := filter.Compile(filter.Config{Collections: []string{s}}); err != nil {
		return "", errors.New("want a collection such as app.bsky.feed.post or app.bsky.*")
	}
	return s, nil
}

func parseDID(s string) (string, error) {
	if _, err := syntax.ParseDID(s); err != nil {
		return "", errors.New("want a DID like did:plc:ewvi7nxzyoun6zhxrhs64oiz")
	}
	return s, nil
}

// reserve is an amount of disk space to leave free: a share of the disk, or bytes.
type reserve struct {
	percent float64
	bytes   uint64
}

func parseReserve(s string) (reserve, error) {
	share, percent := strings.CutSuffix(s, "%")
	p, err := strconv.ParseFloat(strings.TrimSpace(share), 64)
	if percent && err == nil && p >= 0 && p <= 90 {
		return reserve{percent: p}, nil
	}
	if n, err := parseSize(s); err == nil {
		return reserve{bytes: n}, nil
	}
	return reserve{}, errors.New("want a size like 10GiB, or a share from 0% to 90%")
}

// of returns the reserve on a disk of total bytes.
func (r reserve) of(total uint64) uint64 {
	return r.bytes + uint64(r.percent/100*float64(total))
}

// parseSize reads a number of bytes. A number other than 0 needs a unit.
func parseSize(s string) (uint64, error) {
	n, err := humanize.ParseBytes(s) // which ignores commas, so 1,5GiB would be 15GiB
	unit := s == "0" || strings.HasSuffix(s, "B")
	if err != nil || n > math.MaxInt64 || !unit || strings.Contains(s, ",") {
		return 0, errors.New("want a size like 512MiB or 10GiB")
	}
	return n, nil
}

// parseRepoMax reads the size of a repository. Positions in a CAR can address 16 GiB.
func parseRepoMax(s string) (int64, error) {
	n, err := parseSize(s)
	if err != nil || n < 1<<20 || n > 16<<30 {
		return 0, errors.New("want a size from 1MiB to 16GiB")
	}
	return int64(n), nil
}

// parseLogSize reads the size of the log. A smaller log than 1 MiB is a missing unit.
func parseLogSize(s string) (int64, error) {
	n, err := parseSize(s)
	if err != nil || n > 0 && n < 1<<20 {
		return 0, errors.New("want a size of 1MiB or more, such as 100GiB, or 0 for any size")
	}
	return int64(n), nil
}

// parseAge reads a duration as Go does, or a number of days.
func parseAge(s string) (time.Duration, error) {
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

// parsePeriod reads a duration that is long enough as the period of requests to hosts.
func parsePeriod(s string) (time.Duration, error) {
	d, err := parseAge(s)
	if err != nil || d < time.Minute {
		return 0, errors.New("want a duration of a minute or more, such as 6h or 7d")
	}
	return d, nil
}

// parseBackupEvery reads the time between backups.
func parseBackupEvery(s string) (time.Duration, error) {
	d, err := parseAge(s)
	if err != nil || d < time.Second {
		return 0, errors.New("want a duration of a second or more, such as 5m or 1d")
	}
	return d, nil
}

func parseListen(s string) (string, error) {
	_, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return "", errors.New("want host:port, :port for all addresses, or port 0 for any free one")
	}
	return s, nil
}

// parseServer returns the base URL of a running daemon. It reads an address in the form of the
// daemon's options, or a URL.
func parseServer(address string) (string, error) {
	if strings.Contains(address, "://") {
		return parseURL(address)
	}
	if _, err := parseListen(address); err != nil {
		return "", errors.New("want the host:port of a daemon's listener, or its URL")
	}
	if strings.HasPrefix(address, ":") {
		address = "127.0.0.1" + address
	}
	return "http://" + address, nil
}

// loopback reports whether only this machine can reach a listener on addr.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
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
