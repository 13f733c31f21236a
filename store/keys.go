package store

import (
	"bytes"
	"encoding/base32"
	"encoding/binary"
	"fmt"
)

// The whole schema. Every key starts with the byte of its keyspace; numbers are big-endian, so that
// byte order is number order; parts are split by length. Behind the arrow is the value. A
// capital letter or V1 is a Go type, as CBOR behind a version byte; recordRow (values.go), listing
// (listing.go) and postings (postings.go) are bytes behind a version byte.
//
//	'a' name                             → meta        single rows; format.go has the names
//	'b' ordinal(5) block(4)              → record bytes
//	'c' name                             → count       int64, big-endian
//	'd' collection 0x00 ordinal(5)       → uvarint     records of that repo in that collection
//	'e' id(8)                            → entryV1     a commit, import, relist, account, identity or repo event
//	'f' ordinal(5) op(4)                 → listing     some paths of an import or relist, from that op on
//	'g' ordinal(5)                       → ordinal(5)  lease of an open import group: first ordinal → end
//	'h' host name                        → id(4)       and 'i' id(4) → host name
//	'j' version(4)                       → selectionV1 selection of the filter of that version
//	'k' kind 0x00 url 0x00 part          → CrawlMark   position in a list of a crawl source
//	'l' did rev(13)                      → message     live commit that waits for a fetch to end
//	'm' source                           → seq(8)      cursor of a firehose source
//	'n' host(4)                          → HostRow     settings and statistics of a host
//	'o' ordinal(5)                       → did         owner of an ordinal
//	'p' host(4) priority(1) enqueue(8)   → did         pending queue
//	'q' due(8) did                       → empty       retries in due order, unix seconds
//	'r' ordinal(5) path                  → recordRow   MST order; a repository is one range
//	's' did                              → Repo        (repo.go)
//	't' host(4)                          → uvarints    rows that name the host, pending rows of them
//	'u' ordinal(5) block(4)              → uvarint     record rows that refer to the block; no row = 1
//	'v' id(8) ordinal(5) block(4)        → empty       block superseded at that event
//	'w' url                              → Source      firehose source added while running
//	'x' kind::url                        → CrawlSource crawl source added while running
//	'y' ordinal(5)                       → id(8)       dropped; its events are before that one
//	'z' source                           → Progress    progress of a firehose source beside its cursor
//	'A' ordinal(5)                       → empty       abandoned; the collector deletes its bulk rows
//	'B' id(8) ordinal(5)                 → empty       the rows of 'y' in the order of pruning
//	'C' url                              → Reconciliation  comparison with the listing at a URL
//	'D' did                              → DescribeRetry  account whose collections are unknown yet
//	'E' name                             → subscriptionV1  durable subscription of a consumer
//	'F' name                             → positionV1  what its consumer has acknowledged
//	'G' bucket(8) kind(1) collection 0x00 id(8) → postings  events of a chunk, from that id on
//	'H' name                             → webhookStateV1  failures of the webhook of a subscription
//	'I' name                             → maintenanceV1  state of an operation of maintenance
//	'J' id(8)                            → segmentV1   events from that id on that the archive has
//	'M' collection 0x00                  → total       what readers see of it; "" has the sum over all
//	'N' day(4) collection                → arrivals    events of an earlier day; days since 1970
//
// did is 0x01 and 15 bytes for a canonical did:plc, else 0x02, length(2) and the text.
//
// Beside the database, its directory has import/*.sst, the tables of imports, and checkpoints/*/,
// both of which are removed when the store is opened, the unlinked files cistern-spool-* of package
// fetch, and the file RESTORED from the restoring of a backup until the store is opened.
const (
	spaceMeta        = 'a'
	spaceBlock       = 'b'
	spaceCount       = 'c'
	spaceCollection  = 'd'
	spaceEvent       = 'e'
	spaceListing     = 'f'
	spaceLease       = 'g'
	spaceHost        = 'h'
	spaceHostName    = 'i'
	spaceFilter      = 'j'
	spaceCrawl       = 'k'
	spaceBuffer      = 'l'
	spaceCursor      = 'm'
	spaceHostRow     = 'n'
	spaceOwner       = 'o'
	spacePending     = 'p'
	spaceRetry       = 'q'
	spaceRecord      = 'r'
	spaceRepo        = 's'
	spaceHostCount   = 't'
	spaceRef         = 'u'
	spaceSuperseded  = 'v'
	spaceSource      = 'w'
	spaceCrawlSource = 'x'
	spaceDropped     = 'y'
	spaceProgress    = 'z'
	spaceGarbage     = 'A'
	spaceDroppedAt   = 'B'
	spaceReconcile   = 'C'
	spaceDescribe    = 'D'
	spaceSubscribed  = 'E'
	spacePosition    = 'F'
	spacePosting     = 'G'
	spaceWebhook     = 'H'
	spaceMaintenance = 'I'
	spaceSegment     = 'J'
	spaceTotal       = 'M'
	spaceDay         = 'N'
)

// spaceNames are the words of Store.Sizes, in key order.
var spaceNames = map[byte]string{
	spaceMeta: "meta", spaceBlock: "blocks", spaceCount: "counts", spaceCollection: "collections",
	spaceEvent: "events", spaceListing: "listings", spaceLease: "leases", spaceHost: "hosts",
	spaceHostName: "host_names", spaceHostRow: "host_rows", spaceHostCount: "host_counts",
	spaceFilter: "filters", spaceCrawl: "crawls", spaceBuffer: "buffered", spaceCursor: "cursors",
	spaceSource: "sources", spaceCrawlSource: "crawl_sources", spaceOwner: "owners",
	spacePending: "pending", spaceRetry: "retries", spaceRecord: "records", spaceRepo: "repos",
	spaceRef: "refs", spaceSuperseded: "superseded", spaceDropped: "dropped",
	spaceProgress: "progress", spaceGarbage: "abandoned", spaceDroppedAt: "dropped_at",
	spaceReconcile: "reconciliations", spaceDescribe: "describe_retries",
	spaceSubscribed: "subscriptions", spacePosition: "subscription_positions",
	spacePosting: "postings", spaceWebhook: "webhooks", spaceMaintenance: "maintenance",
	spaceSegment: "segments", spaceTotal: "totals", spaceDay: "days",
}

const (
	ordinalBytes = 5
	blockBytes   = 4
	idBytes      = 8
	revBytes     = 13

	didPLC  = 0x01
	didText = 0x02

	plcPrefix = "did:plc:"
	plcChars  = 24
	plcBytes  = 15
)

var plcText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func errKey(space byte, b []byte) error {
	return fmt.Errorf("key %q of %s: %w", b, spaceNames[space], ErrCorrupt)
}

func appendOrdinal(dst []byte, o Ordinal) []byte {
	return append(dst, byte(o>>32), byte(o>>24), byte(o>>16), byte(o>>8), byte(o))
}

func parseOrdinal(b []byte) Ordinal {
	return Ordinal(b[0])<<32 | Ordinal(binary.BigEndian.Uint32(b[1:ordinalBytes]))
}

// appendDID appends the binary form of a DID.
func appendDID(dst []byte, did string) []byte {
	if len(did) == len(plcPrefix)+plcChars && did[:len(plcPrefix)] == plcPrefix {
		var b [plcBytes]byte
		// The decoder skips line ends; a text that is then too short is not canonical.
		if n, err := plcText.Decode(b[:], []byte(did[len(plcPrefix):])); err == nil && n == plcBytes {
			return append(append(dst, didPLC), b[:]...)
		}
	}
	dst = append(dst, didText)
	dst = binary.BigEndian.AppendUint16(dst, uint16(min(len(did), 0xffff)))
	return append(dst, did...)
}

// parseDID reads what appendDID wrote; the whole of b must be one DID.
func parseDID(b []byte) (string, error) {
	if len(b) == 1+plcBytes && b[0] == didPLC {
		var t [len(plcPrefix) + plcChars]byte
		copy(t[:], plcPrefix)
		plcText.Encode(t[len(plcPrefix):], b[1:])
		return string(t[:]), nil
	}
	if len(b) >= 3 && b[0] == didText && int(binary.BigEndian.Uint16(b[1:])) == len(b)-3 {
		return string(b[3:]), nil
	}
	return "", fmt.Errorf("DID %x: %w", b, ErrCorrupt)
}

func metaKey(name string) []byte  { return append([]byte{spaceMeta}, name...) }
func countKey(name string) []byte { return append([]byte{spaceCount}, name...) }
func hostKey(name string) []byte  { return append([]byte{spaceHost}, name...) }

func cursorKey(source string) []byte   { return append([]byte{spaceCursor}, source...) }
func progressKey(source string) []byte { return append([]byte{spaceProgress}, source...) }
func sourceKey(url string) []byte      { return append([]byte{spaceSource}, url...) }

func crawlSourceKey(name string) []byte { return append([]byte{spaceCrawlSource}, name...) }

// crawlSeparator ends the kind and the URL in the key of a mark. Neither contains it.
const crawlSeparator = 0x00

func crawlKey(dst []byte, l CrawlList) []byte {
	dst = append(append(append(dst, spaceCrawl), l.Kind...), crawlSeparator)
	return append(append(append(dst, l.URL...), crawlSeparator), l.Part...)
}

func parseCrawlKey(b []byte) (CrawlList, error) {
	if len(b) == 0 || b[0] != spaceCrawl {
		return CrawlList{}, errKey(spaceCrawl, b)
	}
	kind, rest, found := bytes.Cut(b[1:], []byte{crawlSeparator})
	url, part, ended := bytes.Cut(rest, []byte{crawlSeparator})
	if !found || !ended || len(kind) == 0 || len(url) == 0 {
		return CrawlList{}, errKey(spaceCrawl, b)
	}
	return CrawlList{Kind: string(kind), URL: string(url), Part: string(part)}, nil
}

func reconcileKey(dst []byte, url string) []byte {
	return append(append(dst, spaceReconcile), url...)
}

func parseReconcileKey(b []byte) (url string, err error) {
	if len(b) < 2 || b[0] != spaceReconcile {
		return "", errKey(spaceReconcile, b)
	}
	return string(b[1:]), nil
}

func describeKey(dst []byte, did string) []byte {
	return appendDID(append(dst, spaceDescribe), did)
}

func parseDescribeKey(b []byte) (string, error) {
	if len(b) == 0 || b[0] != spaceDescribe {
		return "", errKey(spaceDescribe, b)
	}
	return parseDID(b[1:])
}

// subscriptionKey appends the key of the definition, the position or the webhook's state of a
// subscription.
func subscriptionKey(dst []byte, space byte, name string) []byte {
	return append(append(dst, space), name...)
}

func parseSubscriptionKey(space byte, b []byte) (name string, err error) {
	if len(b) < 2 || b[0] != space {
		return "", errKey(space, b)
	}
	return string(b[1:]), nil
}

func maintenanceKey(dst []byte, name string) []byte {
	return append(append(dst, spaceMaintenance), name...)
}

func parseMaintenanceKey(b []byte) (name string, err error) {
	if len(b) < 2 || b[0] != spaceMaintenance {
		return "", errKey(spaceMaintenance, b)
	}
	return string(b[1:]), nil
}

func segmentKey(dst []byte, first uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, spaceSegment), first)
}

func parseSegmentKey(b []byte) (first uint64, err error) {
	if len(b) != 1+idBytes || b[0] != spaceSegment {
		return 0, errKey(spaceSegment, b)
	}
	return binary.BigEndian.Uint64(b[1:]), nil
}

// bufferKey appends the key of a buffered commit, or with an empty rev the prefix of a DID's
// buffer.
func bufferKey(dst []byte, did, rev string) []byte {
	return append(appendDID(append(dst, spaceBuffer), did), rev...)
}

func parseBufferKey(b []byte) (did, rev string, err error) {
	end := len(b) - revBytes
	if end < 2 || b[0] != spaceBuffer {
		return "", "", errKey(spaceBuffer, b)
	}
	did, err = parseDID(b[1:end])
	return did, string(b[end:]), err
}

func hostNameKey(id uint32) []byte { return hostIDKey(spaceHostName, id) }

// hostIDKey returns the key of a host in one keyspace.
func hostIDKey(space byte, id uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{space}, id)
}

func parseHostIDKey(space byte, b []byte) (uint32, error) {
	if len(b) != 1+4 || b[0] != space {
		return 0, errKey(space, b)
	}
	return binary.BigEndian.Uint32(b[1:]), nil
}

func repoKey(dst []byte, did string) []byte { return appendDID(append(dst, spaceRepo), did) }

func parseRepoKey(b []byte) (string, error) {
	if len(b) == 0 || b[0] != spaceRepo {
		return "", errKey(spaceRepo, b)
	}
	return parseDID(b[1:])
}

// ordinalKey appends the prefix of all rows of an ordinal in one keyspace; for owner and lease it
// is the key.
func ordinalKey(dst []byte, space byte, o Ordinal) []byte {
	return appendOrdinal(append(dst, space), o)
}

func parseOrdinalKey(space byte, b []byte) (Ordinal, error) {
	if len(b) != 1+ordinalBytes || b[0] != space {
		return 0, errKey(space, b)
	}
	return parseOrdinal(b[1:]), nil
}

func recordKey(dst []byte, o Ordinal, path []byte) []byte {
	return append(ordinalKey(dst, spaceRecord, o), path...)
}

func parseRecordKey(b []byte) (Ordinal, []byte, error) {
	if len(b) <= 1+ordinalBytes || b[0] != spaceRecord {
		return 0, nil, errKey(spaceRecord, b)
	}
	return parseOrdinal(b[1:]), b[1+ordinalBytes:], nil
}

// numberedKey appends the key of a block, ref or listing row.
func numberedKey(dst []byte, space byte, o Ordinal, n uint32) []byte {
	return binary.BigEndian.AppendUint32(ordinalKey(dst, space, o), n)
}

func parseNumberedKey(space byte, b []byte) (Ordinal, uint32, error) {
	if len(b) != 1+ordinalBytes+blockBytes || b[0] != space {
		return 0, 0, errKey(space, b)
	}
	return parseOrdinal(b[1:]), binary.BigEndian.Uint32(b[1+ordinalBytes:]), nil
}

func collectionKey(dst []byte, collection []byte, o Ordinal) []byte {
	return appendOrdinal(append(append(append(dst, spaceCollection), collection...), 0), o)
}

func parseCollectionKey(b []byte) (collection []byte, o Ordinal, err error) {
	end := len(b) - ordinalBytes - 1
	if end < 1 || b[0] != spaceCollection || b[end] != 0 {
		return nil, 0, errKey(spaceCollection, b)
	}
	return b[1:end], parseOrdinal(b[end+1:]), nil
}

func totalKey(dst []byte, collection []byte) []byte {
	return append(append(append(dst, spaceTotal), collection...), 0)
}

// parseTotalKey returns an empty collection for everything.
func parseTotalKey(b []byte) (collection []byte, err error) {
	end := len(b) - 1
	if end < 1 || b[0] != spaceTotal || b[end] != 0 {
		return nil, errKey(spaceTotal, b)
	}
	return b[1:end], nil
}

// dayKey appends the key of the arrivals of a day.
func dayKey(dst []byte, day uint32, collection []byte) []byte {
	return append(binary.BigEndian.AppendUint32(append(dst, spaceDay), day), collection...)
}

func parseDayKey(b []byte) (day uint32, collection []byte, err error) {
	if len(b) < 1+4 || b[0] != spaceDay {
		return 0, nil, errKey(spaceDay, b)
	}
	return binary.BigEndian.Uint32(b[1:]), b[1+4:], nil
}

func eventKey(dst []byte, id uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, spaceEvent), id)
}

func parseEventKey(b []byte) (uint64, error) {
	if len(b) != 1+idBytes || b[0] != spaceEvent {
		return 0, errKey(spaceEvent, b)
	}
	return binary.BigEndian.Uint64(b[1:]), nil
}

func supersededKey(dst []byte, id uint64, o Ordinal, block uint32) []byte {
	dst = binary.BigEndian.AppendUint64(append(dst, spaceSuperseded), id)
	return binary.BigEndian.AppendUint32(appendOrdinal(dst, o), block)
}

func parseSupersededKey(b []byte) (id uint64, o Ordinal, block uint32, err error) {
	if len(b) != 1+idBytes+ordinalBytes+blockBytes || b[0] != spaceSuperseded {
		return 0, 0, 0, errKey(spaceSuperseded, b)
	}
	return binary.BigEndian.Uint64(b[1:]), parseOrdinal(b[1+idBytes:]),
		binary.BigEndian.Uint32(b[1+idBytes+ordinalBytes:]), nil
}

func droppedAtKey(dst []byte, id uint64, o Ordinal) []byte {
	return appendOrdinal(binary.BigEndian.AppendUint64(append(dst, spaceDroppedAt), id), o)
}

func parseDroppedAtKey(b []byte) (id uint64, o Ordinal, err error) {
	if len(b) != 1+idBytes+ordinalBytes || b[0] != spaceDroppedAt {
		return 0, 0, errKey(spaceDroppedAt, b)
	}
	return binary.BigEndian.Uint64(b[1:]), parseOrdinal(b[1+idBytes:]), nil
}

// bucketKey appends the prefix of the postings of a bucket.
func bucketKey(dst []byte, bucket uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, spacePosting), bucket)
}

// postingKey appends the key of the postings of a chunk, which begins at event first. list is a
// kind and a collection, as appendList writes them.
func postingKey(dst []byte, bucket uint64, list []byte, first uint64) []byte {
	return binary.BigEndian.AppendUint64(append(bucketKey(dst, bucket), list...), first)
}

// appendList appends the part of a key of postings that names a kind and a collection. The
// collection is empty for other kinds than KindRecord.
func appendList(dst []byte, kind Kind, collection []byte) []byte {
	return append(append(append(dst, byte(kind)), collection...), 0)
}

func parsePostingKey(b []byte) (bucket uint64, list []byte, first uint64, err error) {
	end := len(b) - idBytes
	if end < 1+idBytes+2 || b[0] != spacePosting || b[end-1] != 0 {
		return 0, nil, 0, errKey(spacePosting, b)
	}
	return binary.BigEndian.Uint64(b[1:]), b[1+idBytes : end], binary.BigEndian.Uint64(b[end:]), nil
}

func pendingKey(dst []byte, k PendingKey) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, spacePending), k.Host)
	return binary.BigEndian.AppendUint64(append(dst, k.Priority), k.Enqueue)
}

func parsePendingKey(b []byte) (PendingKey, error) {
	if len(b) != 1+4+1+8 || b[0] != spacePending {
		return PendingKey{}, errKey(spacePending, b)
	}
	return PendingKey{Host: binary.BigEndian.Uint32(b[1:]), Priority: b[5],
		Enqueue: binary.BigEndian.Uint64(b[6:])}, nil
}

func retryKey(dst []byte, due int64, did string) []byte {
	return appendDID(binary.BigEndian.AppendUint64(append(dst, spaceRetry), uint64(due)), did)
}

func parseRetryKey(b []byte) (due int64, did string, err error) {
	if len(b) < 1+8+1 || b[0] != spaceRetry {
		return 0, "", errKey(spaceRetry, b)
	}
	did, err = parseDID(b[9:])
	return int64(binary.BigEndian.Uint64(b[1:])), did, err
}

func filterKey(dst []byte, version uint32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, spaceFilter), version)
}

func parseFilterKey(b []byte) (uint32, error) {
	if len(b) != 1+4 || b[0] != spaceFilter {
		return 0, errKey(spaceFilter, b)
	}
	return binary.BigEndian.Uint32(b[1:]), nil
}

// spaceEnd returns the key after the last key of a keyspace.
func spaceEnd(space byte) []byte { return []byte{space + 1} }
