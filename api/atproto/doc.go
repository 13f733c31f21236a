// Package atproto answers queries for records and identities from the store.
//
// # Purpose
//
// Each method of Records is a query of com.atproto, or one of blue.microcosm that answers the same
// in another form: it takes parameters, and returns a JSON body or a refusal. Where the lexicons
// leave something open, it answers as the reference PDS does. Methods that look up names do so
// first, and return the function that computes the answer.
//
// # Invariants
//
//  1. Contents of a hidden account are not answered: every method for contents calls Visible.
//  2. Pages neither skip nor repeat items, whatever is written between two requests: the cursor is
//     the last key of the page. Each page has a cursor, but for the empty page at the end.
//  3. A handle stands for an account only if it leads to the DID and the DID document claims the
//     handle. If the store has read the document, its row is used instead of a lookup.
//  4. An ETag changes whenever the answer would. It is read before the records: an answer may be
//     newer than its tag, never older.
//  5. Network errors are not repeated to clients: they may name addresses of this network.
//  6. The memory of an answer is bounded: by pageBytesMax, or by the limit of its items.
//
// # Concurrency
//
// Records may be used by any goroutine. The caller bounds how many answers are computed at a time.
//
// # Files
//
//	atproto.go   Options, Records, limits
//	record.go    getRecord, listRecords
//	repo.go      describeRepo, visibility
//	sync.go      getLatestCommit, getRepoStatus, listRepos, listReposByCollection
//	host.go      listHosts, getHostStatus
//	identity.go  com.atproto.identity, handles as parameters
//	microcosm.go getRecordByUri, resolveMiniDoc
package atproto
