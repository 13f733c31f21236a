// Package atproto answers the queries of com.atproto from the store.
//
// # Purpose
//
// Each method of Records is a query of com.atproto.repo or com.atproto.sync: it takes parameters,
// and returns a JSON body or a refusal. Where the lexicons leave something open, it answers as the
// reference PDS does.
//
// # Invariants
//
//  1. Contents of a hidden account are not answered: every method for contents calls Visible.
//  2. Pages neither skip nor repeat items, whatever is written between two requests: the cursor is
//     the last key of the page. A page that is not empty has a cursor, and an empty one has none.
//  3. The memory of an answer is bounded: by pageBytesMax, or by the limit of its items.
//
// # Concurrency
//
// Records may be used by any goroutine. The caller bounds how many answers are computed at a time.
//
// # Files
//
//	record.go  getRecord, listRecords
//	repo.go    describeRepo, visibility
//	sync.go    getLatestCommit, getRepoStatus, listRepos
package atproto
