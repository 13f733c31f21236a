// Package archive keeps old events of the log in a directory or a bucket.
//
// # Purpose
//
// It moves events that are older than a bound into immutable compressed segments, and reads the log
// as if they had stayed in the store. A segment is one object of a destination:
//
//	log/EPOCH/FIRST-LAST-SUM.seg   magic, frames, index, length of the index, magic
//
// A frame is a zstd frame with some thousand events in CBOR. The index says where frames are, which
// events and collections they have, and their SHA-256.
//
// # Invariants
//
//  1. A segment exists if the store has its row. The row is written when the object was stored and
//     read back: then every frame has its sum, and its events are those that the index says.
//  2. Segments follow one another without a gap or an overlap, and nothing is pruned that no
//     segment has (store.Options.Archive).
//  3. An object is believed only by the sum of its index, which the row has, and a frame only by
//     its sum in the index. Damage is an error that names the segment, and never another event.
//  4. What is shown of archived events is what the store shows now of such events: those of
//     accounts that are hidden, wiped or dropped by now are left out as in the log.
//  5. A page never passes an event whose visibility is decided by a batch that is not durable yet.
//  6. At most readersMax pages read segments at a time, and a part that does not arrive within
//     fetchTimeout ends a page.
//
// # Concurrency
//
// An Archive may be used by any goroutine. One at a time calls Offload. It owns no goroutine.
//
// # Files
//
//   - archive.go: Options, Archive; limits.go
//   - frame.go, index.go, segment.go: the format; codec.go: its CBOR and zstd
//   - offload.go: Offload; deleted.go: segments that the operator has deleted
//   - log.go: the log, of which segments are the beginning; page.go: one page of segments
//   - fetch.go: frames and indexes, and those kept in memory
package archive
