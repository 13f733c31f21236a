package simnet

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"cistern/ingest/repo"
)

// recordGen makes plausible records from one account's random stream.
type recordGen struct {
	rng *rand.Rand
	net *Network
	did string

	collection string // of the newest record
	record     []byte // the newest record, which the next may equal
}

// Post is the record of a short post, for tests that need one.
func Post(text string) map[string]any {
	return map[string]any{"$type": "app.bsky.feed.post", "text": text,
		"createdAt": "2026-01-01T00:00:00.000Z"}
}

// next makes one record of a mixed collection: its path and bytes. About one in thirty equals
// the one before, so that two paths share a block.
func (g *recordGen) next(at time.Time) (string, []byte) {
	rkey := "/" + tid(at, g.rng.IntN(1024))
	if g.record != nil && g.rng.IntN(30) == 0 {
		return g.collection + rkey, g.record
	}
	var v map[string]any
	switch p := g.rng.IntN(100); {
	case p < 50:
		v = map[string]any{"$type": "app.bsky.feed.like", "subject": g.strongRef()}
	case p < 75:
		v = g.post()
	case p < 88:
		v = map[string]any{"$type": "app.bsky.graph.follow", "subject": g.account()}
	case p < 96:
		v = map[string]any{"$type": "app.bsky.feed.repost", "subject": g.strongRef()}
	default:
		g.collection, g.record = noteCollection, g.note(at)
		return g.collection + rkey, g.record
	}
	v["createdAt"] = datetime(at)
	g.collection, g.record = v["$type"].(string), EncodeRecord(v)
	return g.collection + rkey, g.record
}

// profile makes the profile record of account number i.
func (g *recordGen) profile(at time.Time, i int) []byte {
	return EncodeRecord(map[string]any{
		"$type": "app.bsky.actor.profile", "displayName": fmt.Sprintf("User %d", i),
		"description": g.text(120), "avatar": g.blob("image/jpeg"), "createdAt": datetime(at),
	})
}

const noteCollection = "com.example.sim.note"

// note makes a record with every type of the data model.
func (g *recordGen) note(at time.Time) []byte {
	raw := make([]byte, g.rng.IntN(60))
	for i := range raw {
		raw[i] = byte(g.rng.Uint32())
	}
	return EncodeRecord(map[string]any{
		"$type": noteCollection, "createdAt": datetime(at), "bytes": raw, "link": g.cid(),
		"blob": g.blob("text/plain"), "int": int64(g.rng.Uint64()>>11) - 1<<52,
		"bool": g.rng.IntN(2) == 0, "null": nil, "empty": map[string]any{},
		"nested": []any{[]any{}, map[string]any{"a": 1, "bb": []any{g.text(30), -1}},
			"naïve \"quoted\"\n\u2028"},
	})
}

func (g *recordGen) post() map[string]any {
	text := g.text(280)
	post := map[string]any{"$type": "app.bsky.feed.post", "text": text, "langs": []any{"en"}}
	if g.rng.IntN(10) < 3 {
		post["reply"] = map[string]any{"root": g.strongRef(), "parent": g.strongRef()}
	}
	switch p := g.rng.IntN(100); {
	case p < 14:
		post["embed"] = map[string]any{"$type": "app.bsky.embed.images", "images": []any{map[string]any{
			"alt": g.text(60), "image": g.blob("image/jpeg"),
			"aspectRatio": map[string]any{"width": 1200, "height": 900},
		}}}
	case p < 20:
		post["embed"] = map[string]any{"$type": "app.bsky.embed.record", "record": g.strongRef()}
	case p < 28:
		post["facets"] = []any{map[string]any{
			"index": map[string]any{"byteStart": 0, "byteEnd": len(text)},
			"features": []any{map[string]any{"$type": "app.bsky.richtext.facet#mention",
				"did": g.account()}},
		}}
	}
	return post
}

// text makes words up to about max bytes, short ones more often than long ones.
func (g *recordGen) text(max int) string {
	want := 1 + g.rng.IntN(1+g.rng.IntN(max))
	var b strings.Builder
	for b.Len() < want {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(g.net.words[g.rng.IntN(len(g.net.words))])
	}
	return b.String()
}

func (g *recordGen) account() string { return g.net.didAt(g.rng.IntN(g.net.opts.Repos)) }

func (g *recordGen) strongRef() map[string]any {
	at := g.net.opts.Epoch.Add(-time.Duration(g.rng.IntN(1e9)) * time.Millisecond)
	return map[string]any{
		"uri": "at://" + g.account() + "/app.bsky.feed.post/" + tid(at, g.rng.IntN(1024)),
		"cid": g.cid().String(),
	}
}

func (g *recordGen) cid() repo.CID { return repo.CID(g.digest()) }

func (g *recordGen) blob(mime string) map[string]any {
	return map[string]any{
		"$type": "blob", "ref": RawCID(g.digest()), "mimeType": mime,
		"size": 20_000 + g.rng.IntN(900_000),
	}
}

func (g *recordGen) digest() (d [32]byte) {
	for i := range d {
		d[i] = byte(g.rng.Uint32())
	}
	return d
}

func datetime(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000Z") }
