// Package recordjson turns records into JSON.
//
// # Purpose
//
// It converts a record, a DAG-CBOR map from outside, into the JSON form that the AT Protocol data
// model defines.
//
// # Invariants
//
//  1. Bytes from outside never panic, and take time and memory in proportion to their length.
//  2. Append appends valid JSON that depends only on the record's bytes. If there is no JSON form,
//     it appends nothing, and the error states the byte and the reason.
//
// # Concurrency
//
// Functions are pure.
//
// # Files
//
//	json.go  Append, Error, the limits
package recordjson
