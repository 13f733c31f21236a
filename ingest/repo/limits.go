package repo

import "time"

// Limits of data from outside. Exceeding one is ErrInvalid.
const (
	// sectionVarintBytesMax: a uint64 takes at most ten bytes of seven bits.
	sectionVarintBytesMax = 10

	// headerBytesMax: {"roots":[CID],"version":1} takes 58 bytes; 4 KiB holds 100 roots.
	headerBytesMax = 4 << 10

	// blockBytesMax: the protocol allows records of 1 MiB. A tree node grown on purpose, by keys of
	// one layer, takes about 130 bytes an entry, so that 2 MiB hold 16,000 entries, twice what
	// other readers accept.
	blockBytesMax = 2 << 20

	// bytesMax is the default limit on a CAR: 4 GiB, ten million records of 400 bytes.
	bytesMax = 4 << 30

	// bytesCeiling is half of what 35 bits of position can address: large blocks in a row may leave
	// half of the chunks empty.
	bytesCeiling = 16 << 30

	// blocksMax is the default limit on blocks: an index of 2^25 slots, three quarters full,
	// which is 256 MiB, and half of that again while it doubles. A
	// peer has to send at least a gigabyte to fill it.
	blocksMax = 3 << 23

	// blocksCeiling is an index of 2^28 slots, one bit less than a slot holds of the hash.
	blocksCeiling = 3 << 26

	// layersMax: a key of layer n takes 4^n hashes to find, so that layer 32 takes 2^64.
	layersMax = 32

	// keyBytesMax: a collection of 317 bytes, a slash and a record key of 512, rounded up.
	keyBytesMax = 1024

	// collectionBytesMax and rkeyBytesMax are the protocol's.
	collectionBytesMax = 317
	rkeyBytesMax       = 512

	// commitBytesMax: 6 fields, the longest being a DID of 2 KiB.
	commitBytesMax = 4 << 10

	// sliceBytesMax is the protocol's limit on the blocks of a commit message.
	sliceBytesMax = 2_000_000

	// sliceBlocksMax: 200 operations in a tree of a million records take some 200 records and 2,500
	// nodes; at 8,192 a block has 244 bytes.
	sliceBlocksMax = 8192

	// sliceKeyBytesMax bounds what the keys of a slice's nodes become when they are written out. 2 MB
	// of nodes are 37,000 entries at most, of 200 bytes each; only keys of nearly 1 KiB make more.
	sliceKeyBytesMax = 8 << 20

	// sliceKeyChunkBytes holds the keys of an ordinary commit: 30 of 40 bytes each.
	sliceKeyChunkBytes = 4 << 10

	// sliceKeepBytes bounds the CAR of which the memory is kept for the next: 20 ordinary commits.
	sliceKeepBytes = 64 << 10

	// RevSkewMax is how far ahead of the local clock a rev may be.
	RevSkewMax = 5 * time.Minute
)
