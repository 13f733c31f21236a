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
	// CacheShortly is for content that is addressed by its hash. It cannot change, but it may be
	// deleted, or its account hidden, and caches must drop it within minutes then.
	CacheShortly = "public, max-age=60"
)

// Version sets the ETag of the answer to a version, and Cache-Control to cache. It returns
// ErrUnchanged if the client has this version. The tag is weak, because the answer may be
// compressed.
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

// Reflects sets Atproto-Repo-Rev: the answer shows the repository at this rev or a later one.
func (q Query) Reflects(rev string) {
	if q.Header != nil {
		q.Header.Set("Atproto-Repo-Rev", rev)
	}
}
