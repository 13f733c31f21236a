// Dictionary writes the samples that the zstd dictionary of messages is trained on, half of them as
// Jetstream v2 sends them, half as /stream does:
//
//	go run ./testdata/dictionary DIR
//	zstd --train -r DIR --maxdict=16384 --dictID=20261201 -o api/deliver/format/messages.dict
//
// The samples are made up from the lexicons of Bluesky, so that nothing that a person wrote is in
// the dictionary. Most of a message is DIDs, CIDs and record keys, which nothing compresses: with
// this dictionary messages take 40 % of their size, and with one of 32 KiB no less. Two dictionaries
// of the same size, one for each kind of message, make them 1 to 4 % smaller. Clients name a dictionary
// by its id, so a new one needs a new id.
package main

import (
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const samples = 6000

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: dictionary DIR")
	}
	g := generator{rand.New(rand.NewPCG(20261130, 1))}
	for i := range samples {
		name := filepath.Join(os.Args[1], fmt.Sprint(i))
		if err := os.WriteFile(name, []byte(g.message(i%2 == 0)), 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

// generator makes messages.
type generator struct{ *rand.Rand }

func (g generator) pick(words ...string) string { return words[g.IntN(len(words))] }

// text returns random characters of an alphabet.
func (g generator) text(n int, alphabet string) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[g.IntN(len(alphabet))]
	}
	return string(b)
}

const base32 = "abcdefghijklmnopqrstuvwxyz234567"

func (g generator) did() string {
	if g.IntN(40) == 0 {
		return "did:web:" + g.text(8, base32[:26]) + g.pick(".com", ".org", ".net", ".social")
	}
	return "did:plc:" + g.text(24, base32)
}

func (g generator) tid() string {
	return g.pick("3m", "3n") + g.text(11, "234567abcdefghijklmnopqrstuvwxyz")
}
func (g generator) cid() string { return "bafyrei" + g.text(52, base32) }
func (g generator) blob() string {
	return fmt.Sprintf(`{"$type":"blob","ref":{"$link":"bafkrei%s"},"mimeType":"image/%s","size":%d}`,
		g.text(52, base32), g.pick("jpeg", "jpeg", "png", "webp"), g.IntN(1_000_000))
}

func (g generator) at() string {
	return time.Unix(1_790_000_000+g.Int64N(100_000_000), 0).UTC().Format("2006-01-02T15:04:05.") +
		fmt.Sprintf("%03dZ", g.IntN(1000))
}

func (g generator) ref() string {
	return fmt.Sprintf(`{"cid":"%s","uri":"at://%s/app.bsky.feed.%s/%s"}`, g.cid(), g.did(),
		g.pick("post", "post", "post", "generator"), g.tid())
}

// words returns a sentence.
func (g generator) words(n int) string {
	all := strings.Fields("the a to of and in is it you that for on with this I my have be are was not but just so like " +
		"at we they what all your new from can about out me one get people when good day time love more do how today " +
		"now know see who would really think going year work first make game art world post follow news live video " +
		"o que de não e é para um uma com la el en y los por se del las una de la et le les des un est pour que der die und")
	out := make([]string, n)
	for i := range out {
		out[i] = all[g.IntN(len(all))]
	}
	return strings.Join(out, " ")
}

// message returns a message in the proportions of the network, as Jetstream v2 or /stream sends it.
func (g generator) message(jetstream bool) string {
	did := g.did()
	switch g.IntN(40) {
	case 0:
		handle := g.pick(g.text(9, base32[:26])+".bsky.social", g.text(9, base32[:26])+".com", "handle.invalid")
		if jetstream {
			return g.head("identity", did) + fmt.Sprintf(`"identity":{"did":"%s","seq":%d,"time":"%s","handle":"%s"}}}`,
				did, g.IntN(1_000_000_000), g.micros(), handle)
		}
		return fmt.Sprintf(`{"id":%d,"type":"identity","identity":{"did":"%s","handle":"%s","pds":"https://%s.us-%s.host.bsky.network"}}`,
			g.IntN(1_000_000_000), did, handle, g.pick("morel", "shimeji", "enoki"), g.pick("east", "west"))
	case 1:
		active := g.pick("true", "true", `false,"status":"deactivated"`, `false,"status":"deleted"`,
			`false,"status":"takendown"`, `false,"status":"suspended"`)
		if jetstream {
			return g.head("account", did) + fmt.Sprintf(`"account":{"did":"%s","seq":%d,"time":"%s","active":%s}}}`,
				did, g.IntN(1_000_000_000), g.micros(), active)
		}
		return fmt.Sprintf(`{"id":%d,"type":"account","account":{"did":"%s","active":%s}}`, g.IntN(1_000_000_000), did, active)
	}
	return g.commit(did, jetstream)
}

// head returns the beginning of a message of Jetstream.
func (g generator) head(kind, did string) string {
	return fmt.Sprintf(`{"$type":"message","payload":{"$type":"network.bsky.jetstream.subscribeEvents#%s","seq":%d,"did":"%s","time":"%s",`,
		kind, g.IntN(1_000_000_000), did, g.micros())
}

// commit returns a message about a record.
func (g generator) commit(did string, jetstream bool) string {
	collection, record := g.record()
	rkey := g.tid()
	if collection == "app.bsky.actor.profile" || collection == "chat.bsky.actor.declaration" {
		rkey = "self"
	}
	action, body := "create", fmt.Sprintf(`,"record":%s,"cid":"%s"`, record, g.cid())
	switch {
	case g.IntN(12) == 0:
		action, body = "delete", ""
	case rkey == "self" || g.IntN(50) == 0:
		action = "update"
	}
	if jetstream {
		return g.head("commit", did) + fmt.Sprintf(`"rev":"%s","operation":"%s","collection":"%s","rkey":"%s"%s}}`,
			g.tid(), action, collection, rkey, body)
	}
	return fmt.Sprintf(`{"id":%d,"type":"record","record":{"live":%s,"did":"%s","rev":"%s","collection":"%s","rkey":"%s","action":"%s"%s}}`,
		g.IntN(1_000_000_000), g.pick("true", "false"), did, g.tid(), collection, rkey, action, body)
}

func (g generator) micros() string {
	return strings.TrimSuffix(g.at(), "Z") + fmt.Sprintf("%03dZ", g.IntN(1000))
}

// record returns a record with its keys in the order of DAG-CBOR, by length.
func (g generator) record() (collection, record string) {
	switch n := g.IntN(100); {
	case n < 40:
		via := ""
		if g.IntN(4) == 0 {
			via = `"via":` + strings.Replace(g.ref(), "feed.post", "feed.repost", 1) + ","
		}
		return "app.bsky.feed.like", fmt.Sprintf(`{%s"$type":"app.bsky.feed.like","subject":%s,"createdAt":"%s"}`, via, g.ref(), g.at())
	case n < 62:
		return "app.bsky.feed.post", g.post()
	case n < 82:
		return "app.bsky.graph.follow", fmt.Sprintf(`{"$type":"app.bsky.graph.follow","subject":"%s","createdAt":"%s"}`, g.did(), g.at())
	case n < 90:
		return "app.bsky.feed.repost", fmt.Sprintf(`{"$type":"app.bsky.feed.repost","subject":%s,"createdAt":"%s"}`, g.ref(), g.at())
	case n < 93:
		return "app.bsky.graph.block", fmt.Sprintf(`{"$type":"app.bsky.graph.block","subject":"%s","createdAt":"%s"}`, g.did(), g.at())
	case n < 94:
		list := fmt.Sprintf("at://%s/app.bsky.graph.list/%s", g.did(), g.tid())
		return "app.bsky.graph.listitem", fmt.Sprintf(`{"list":"%s","$type":"app.bsky.graph.listitem","subject":"%s","createdAt":"%s"}`, list, g.did(), g.at())
	case n < 97:
		return "app.bsky.actor.profile", fmt.Sprintf(`{"$type":"app.bsky.actor.profile","avatar":%s,"banner":%s,"createdAt":"%s","pinnedPost":%s,"description":"%s","displayName":"%s"}`,
			g.blob(), g.blob(), g.at(), g.ref(), g.words(12), g.words(2))
	case n < 98:
		uri := fmt.Sprintf("at://%s/app.bsky.feed.post/%s", g.did(), g.tid())
		return "app.bsky.feed.threadgate", fmt.Sprintf(`{"post":"%s","$type":"app.bsky.feed.threadgate","allow":[{"$type":"app.bsky.feed.threadgate#%s"}],"createdAt":"%s","hiddenReplies":[]}`,
			uri, g.pick("mentionRule", "followingRule", "followerRule"), g.at())
	case n < 99:
		uri := fmt.Sprintf("at://%s/app.bsky.feed.post/%s", g.did(), g.tid())
		return "app.bsky.feed.postgate", fmt.Sprintf(`{"post":"%s","$type":"app.bsky.feed.postgate","createdAt":"%s","embeddingRules":[{"$type":"app.bsky.feed.postgate#disableRule"}],"detachedEmbeddingUris":[]}`, uri, g.at())
	}
	return "chat.bsky.actor.declaration", fmt.Sprintf(`{"$type":"chat.bsky.actor.declaration","allowIncoming":"%s"}`, g.pick("all", "none", "following"))
}

func (g generator) post() string {
	out := fmt.Sprintf(`{"text":"%s","$type":"app.bsky.feed.post"`, g.words(3+g.IntN(30)))
	ratio := fmt.Sprintf(`"aspectRatio":{"width":%d,"height":%d}`, 100+g.IntN(3000), 100+g.IntN(3000))
	images := fmt.Sprintf(`{"$type":"app.bsky.embed.images","images":[{"alt":"%s","image":%s,%s}]}`, g.pick("", g.words(8)), g.blob(), ratio)
	external := fmt.Sprintf(`{"$type":"app.bsky.embed.external","external":{"uri":"https://%s%s/%s","thumb":%s,"title":"%s","description":"%s"}}`,
		g.pick("www.", ""), g.pick("youtube.com/watch?v=", "youtu.be", "media.tenor.com", "www.theguardian.com", "www.nytimes.com", "example.com"), g.text(11, base32), g.blob(), g.words(7), g.words(14))
	record := fmt.Sprintf(`{"$type":"app.bsky.embed.record","record":%s}`, g.ref())
	video := fmt.Sprintf(`{"$type":"app.bsky.embed.video","video":%s,%s}`, strings.Replace(g.blob(), "image/jpeg", "video/mp4", 1), ratio)
	switch g.IntN(8) {
	case 0:
		out += `,"embed":` + images
	case 1:
		out += `,"embed":` + external
	case 2:
		out += `,"embed":` + record
	case 3:
		out += `,"embed":` + g.pick(video, `{"$type":"app.bsky.embed.recordWithMedia","media":`+images+`,"record":`+record+`}`)
	}
	if g.IntN(3) > 0 {
		out += fmt.Sprintf(`,"langs":["%s"]`, g.pick("en", "en", "en", "pt", "ja", "de", "es", "fr"))
	}
	if g.IntN(2) == 0 {
		out += fmt.Sprintf(`,"reply":{"root":%s,"parent":%s}`, g.ref(), g.ref())
	}
	if g.IntN(5) == 0 {
		feature := g.pick(fmt.Sprintf(`{"tag":"%s","$type":"app.bsky.richtext.facet#tag"}`, g.words(1)),
			fmt.Sprintf(`{"uri":"https://%s","$type":"app.bsky.richtext.facet#link"}`, g.text(12, base32)),
			fmt.Sprintf(`{"did":"%s","$type":"app.bsky.richtext.facet#mention"}`, g.did()))
		out += fmt.Sprintf(`,"facets":[{"$type":"app.bsky.richtext.facet","index":{"byteEnd":%d,"byteStart":%d},"features":[%s]}]`, g.IntN(300), g.IntN(300), feature)
	}
	if g.IntN(20) == 0 {
		out += fmt.Sprintf(`,"labels":{"$type":"com.atproto.label.defs#selfLabels","values":[{"val":"%s"}]}`, g.pick("porn", "sexual", "nudity", "graphic-media"))
	}
	return out + fmt.Sprintf(`,"createdAt":"%s"}`, g.at())
}
