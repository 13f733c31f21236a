// Package repo reads AT Protocol repositories.
//
// # Purpose
//
// It parses and verifies the bytes of a repository (CAR, tree, commit, record) that come from
// outside, or refuses them.
//
// # Invariants
//
//  1. Bytes from outside never panic, and never cost more memory or time than the limits in
//     limits.go allow. Invalid bytes are ErrInvalid; errors of a reader or a spool are not.
//  2. A returned block hashes to the requested CID: it was hashed when it arrived.
//  3. A Walk that returns nil has visited every record of the tree once, in key order, and the tree
//     has the only form that the protocol allows for these records.
//  4. A result depends on the bytes only, not on the order of a CAR's blocks, on how much of the
//     CAR was spooled, or on the index's seed.
//  5. Invert returns the root of the tree without the operations, or an error. It uses only the CID
//     of a node that is not in the slice.
//  6. A Tree has the root that a Walk over a tree of these records starts from.
//
// # Concurrency
//
// A CAR, a Slice or a Tree belongs to one goroutine at a time. ChunkPool and Key may be shared.
// Functions are pure. No goroutine is started.
//
// # Files
//
//	car.go      ReadCAR, Block, Close       section.go  the CAR format: varints, header
//	body.go     where blocks are kept       chunk.go    memory shared between CARs
//	index.go    digest → place in the body  cid.go      CID
//	walk.go     Walk and its checks         node.go     tree nodes
//	path.go     collection/rkey             tid.go      revs
//	slice.go    CARs of live messages       invert.go   undoing operations
//	parttree.go trees known in part         partial.go  records of some key ranges
//	tree.go     the nodes and the root of all records  treenode.go  TreeNode
//	commit.go   commits and signatures      cbor.go     DAG-CBOR heads and links
//	limits.go   every limit                 errors.go   ErrInvalid, ErrTooLarge
//	key.go      Key: signing keys           k256_cgo.go, k256_go.go  K-256 with and without cgo
package repo
