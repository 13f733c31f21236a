package manifest

import (
	"crypto/sha256"
	"encoding/hex"

	"cistern/store"
)

// Line is a line of a manifest: a repository, and its CAR or why it has none.
type Line struct {
	DID     string `json:"did"`
	Rev     string `json:"rev,omitempty"`
	Path    string `json:"path,omitempty"`
	Records int64  `json:"records,omitempty"`
	Bytes   int64  `json:"bytes,omitempty"`
	SHA     string `json:"sha256,omitempty"`
	LeftOut string `json:"left_out,omitempty"`
}

// The reasons why a repository has no CAR, beside those that Describe finds.
const (
	Unknown    = "the account is unknown"
	Mismatch   = "the stored copy does not agree with its commit"
	Incomplete = "not all of its records are stored: the filter leaves some out, or they are being " +
		"fetched"
)

// Describe returns the line of a repository without its CAR. LeftOut is the reason why it must have
// none, as far as the row says.
func Describe(row *store.Repo) Line {
	l := Line{DID: row.DID, Rev: row.Rev}
	switch {
	case row.Status.Hidden():
		l.LeftOut = "the account is " + row.Status.String()
	case row.Rev == "":
		l.LeftOut = "the repository was not fetched yet"
	}
	return l
}

// SetCAR adds the CAR of a repository to its line.
func (l *Line) SetCAR(records, bytes int64, sum string) {
	l.Path, l.Records, l.Bytes, l.SHA = PathOf(l.DID), records, bytes, sum
}

// didBytesMax is the length up to which a DID is the name of a file, which may have 255 bytes. A
// longer one is named by its hash.
const didBytesMax = 200

// PathOf returns the name of the CAR of an account.
func PathOf(did string) string {
	sum := sha256.Sum256([]byte(did))
	hash := hex.EncodeToString(sum[:])
	name := did
	if len(did) > didBytesMax {
		name = hash
	}
	return "repos/" + hash[:2] + "/" + name + ".car"
}
