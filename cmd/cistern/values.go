package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// reserve is an amount of disk space to leave free: a share of the disk, or bytes.
type reserve struct {
	percent float64
	bytes   uint64
}

var errReserve = errors.New("want a share like 5% or a size like 10GiB")

func parseReserve(s string) (reserve, error) {
	if share, ok := strings.CutSuffix(s, "%"); ok {
		p, err := strconv.ParseFloat(strings.TrimSpace(share), 64)
		if err != nil || !(p >= 0 && p <= 90) {
			return reserve{}, fmt.Errorf("%w, the share from 0%% to 90%%", errReserve)
		}
		return reserve{percent: p}, nil
	}
	n, err := parseSize(s)
	if err != nil {
		return reserve{}, errReserve
	}
	return reserve{bytes: n}, nil
}

// of is the reserve on a disk of total bytes.
func (r reserve) of(total uint64) uint64 {
	return r.bytes + uint64(r.percent/100*float64(total))
}

// sizeUnits are tried in order: longer suffixes before those they end with.
var sizeUnits = []struct {
	suffix string
	bytes  float64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"kB", 1e3}, {"B", 1},
}

// parseSize reads a number of bytes; a bare number other than 0 lacks its unit.
func parseSize(s string) (uint64, error) {
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || !(f >= 0 && f*u.bytes < math.MaxInt64) {
			break
		}
		return uint64(f * u.bytes), nil
	}
	if s == "0" {
		return 0, nil
	}
	return 0, errors.New("want a size like 512MiB or 10GiB")
}

// parseRepoMax reads the size of a repository: what positions in a CAR can address is the most.
func parseRepoMax(s string) (int64, error) {
	n, err := parseSize(s)
	if err != nil || n < 1<<20 || n > 16<<30 {
		return 0, errors.New("want a size from 1MiB to 16GiB")
	}
	return int64(n), nil
}

// parseAge reads a duration as Go does, and days.
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

// parseListen checks an address to listen on.
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

// loopback says whether only this machine can reach a listener on addr.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// parseURL checks a base URL of one of the schemes and drops a trailing slash.
func parseURL(s string, schemes ...string) (string, error) {
	want := fmt.Errorf("want a URL like %s://host", strings.Join(schemes, "://host or "))
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.Opaque != "" {
		return "", want
	}
	known := false
	for _, scheme := range schemes {
		known = known || u.Scheme == scheme
	}
	switch {
	case !known:
		return "", want
	case u.User != nil:
		return "", fmt.Errorf("%w without user and password", want)
	case u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("%w without query and fragment", want)
	}
	return strings.TrimRight(s, "/"), nil
}

// withoutUser is a value as an error may show it: what stands before the host of a URL may be a password.
func withoutUser(value string) string {
	scheme, rest, _ := strings.Cut(value, "://")
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		return scheme + "://…" + rest[at:]
	}
	return value
}

// suggest names the candidate nearest to word, as words to put behind an error; "" when none is near.
func suggest(word string, candidates []string) string {
	best, distance := nearest(word, candidates)
	if best == "" || distance > 1+len(word)/3 {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// nearest is the candidate with the smallest edit distance to word, the first of several.
func nearest(word string, candidates []string) (best string, distance int) {
	for _, c := range candidates {
		if d := editDistance(word, c); best == "" || d < distance {
			best, distance = c, d
		}
	}
	return best, distance
}

// editDistance is the number of bytes to insert, delete or replace to get from a to b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
