package wire

import (
	"errors"
	"strings"
)

// ErrUnchanged means that the client has the answer already: the status is 304, and there is no
// body.
var ErrUnchanged = errors.New("the client has the answer")

// How long caches may use an answer.
const (
	// CacheNot has caches ask each time whether the answer is still valid.
	CacheNot = "no-cache"
	// CacheShortly is for content that is addressed by its hash. It cannot change, but an account
	// may be hidden or delete it, which readers have to follow within minutes.
	CacheShortly = "public, max-age=60"
)

// Version names what the answer shows, for the ETag. The error is ErrUnchanged if the client has it.
// The tag is a weak one, as the answer may be compressed.
func (q Query) Version(version, cache string) error {
	tag := `"` + version + `"`
	if q.Header != nil {
		q.Header.Set("ETag", "W/"+tag)
		q.Header.Set("Cache-Control", cache)
	}
	for _, line := range q.match {
		for have := range strings.SplitSeq(line, ",") {
			if have = strings.TrimSpace(have); have == "*" || strings.TrimPrefix(have, "W/") == tag {
				return ErrUnchanged
			}
		}
	}
	return nil
}

// Reflects names the rev of the repository that the answer shows, or a later one.
func (q Query) Reflects(rev string) {
	if q.Header != nil {
		q.Header.Set("Atproto-Repo-Rev", rev)
	}
}
