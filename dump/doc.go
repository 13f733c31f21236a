// Package dump writes all current records that a filter wants into files.
//
// # Purpose
//
// A format turns records into one file: NDJSON, a line a record, or Parquet with typed columns. A
// Reading is a pass over the records of a store that goes on from file to file, and from a token.
// Run brings a reading into part files at a destination of package objects, and Maker does so for a
// daemon on a schedule:
//
//	records-00001.parquet   part files, in the order of the reading
//	records-00001.json      what is needed to go on behind that part; deleted at the end
//	manifest.json           the marker: head, filter, and each part with its rows, size and sum
//
// # Invariants
//
//  1. A row is a record that the store shows, with the rev under which the store has it. With the
//     log after the head, the rows of a reading are exact (store/snapshot.go).
//  2. No record is left out because it has no JSON form: its row states the reason instead.
//  3. A file is whole or it is known not to be: Parquet ends with its footer, NDJSON with tokens
//     with a line that says that it is complete or where to go on, and parts are objects.
//  4. An export exists if its manifest does. The manifest is written last, when every part is
//     durable and listed with its size.
//  5. An interrupted export goes on behind its last part that was noted: no record comes twice or
//     is missing. Parts that were not noted are deleted or replaced.
//  6. The memory of a reading is bounded by its pages and by one row group, not by what it reads.
//
// # Concurrency
//
// A Reading has one user at a time. While it writes a file, it reads and encodes on a goroutine of
// its own, which has ended when WriteFile returns. Run owns no other goroutine.
//
// # Files
//
//   - row.go: the fields of a row; ndjson.go, parquet.go: the formats; format.go: Format
//   - reading.go: Reading; page.go: what is read at a time; compress.go: codings
//   - run.go: Run; part.go: parts; manifest.go: the manifest; maker.go: Maker
//   - limits.go
package dump
