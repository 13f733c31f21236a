// Package recordjson turns records into JSON.
//
// # Purpose
//
// A record is a map in DAG-CBOR, from outside. Its JSON form is that of the AT Protocol data model.
//
// # Invariants
//
//  1. Bytes from outside never panic, and take time and memory in proportion to their length.
//  2. What is appended is valid JSON, the same for the same bytes; or nothing is, and the error says
//     at which byte and why.
//
// # Concurrency
//
// Functions are pure.
//
// # Files
//
//	json.go  Append, Error, the limits
package recordjson
