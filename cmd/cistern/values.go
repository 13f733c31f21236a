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
	"strconv"
	"strings"
	"time"

	"cistern/backfill/discover"
	"cistern/backfill/pace"
	"cistern/cmd/cistern/command"
	"cistern/ingest/firehose"
	"cistern/store"

	"github.com/dustin/go-humanize"
	"github.com/klauspost/compress/zstd"
)

func parseShare(s string) (int, error) {
	n, err := command.Number(1, 100)(strings.TrimSuffix(s, "%"))
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
		if err != nil { // without the value, which Load names
			err = fmt.Errorf("want a URL like https://example.com; this one %w", errors.Unwrap(err))
		}
		return src, err
	}
}

func parseBan(s string) (pace.Rule, error) {
	glob, err := pace.ParseGlob(s)
	return pace.Rule{Glob: glob, Banned: true}, err
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

// parsePeriod reads a duration that is long enough as the period of requests to hosts.
func parsePeriod(s string) (time.Duration, error) {
	d, err := command.ParseAge(s)
	if err != nil || d < time.Minute {
		return 0, errors.New("want a duration of a minute or more, such as 6h or 7d")
	}
	return d, nil
}

// parseBackupEvery reads the time between backups.
func parseBackupEvery(s string) (time.Duration, error) {
	d, err := command.ParseAge(s)
	if err != nil || d < time.Second {
		return 0, errors.New("want a duration of a second or more, such as 5m or 1d")
	}
	return d, nil
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
