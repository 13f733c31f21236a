package linkindex

import (
	"fmt"

	"cistern/store"

	"github.com/fxamacker/cbor/v2"
)

// stateVersion is the version of all rows. An index of another version is built anew.
const stateVersion = 2

// state is the row that every write of the index has. What it says is in the index with it, since
// one write is there as a whole or not at all, and none without those before it.
type state struct {
	Version uint64 `cbor:"1,keyasint"`
	Secret  []byte `cbor:"2,keyasint"` // of the hashes of targets
	Epoch   string `cbor:"3,keyasint"` // of the log; "" before the first pass
	Through uint64 `cbor:"4,keyasint"` // every event up to it is in the index, once the pass has ended
	Pass    *pass  `cbor:"5,keyasint,omitempty"`
	Passed  int64  `cbor:"6,keyasint,omitempty"` // records of the pass that were indexed
	Links   int64  `cbor:"7,keyasint"`

	// The numbers that were given last; the first one given is 1.
	Arrival  uint64 `cbor:"8,keyasint"`
	Accounts uint32 `cbor:"9,keyasint"`
	Sources  uint32 `cbor:"10,keyasint"`
}

// pass is a pass over the records that were stored when it began, and where it goes on.
type pass struct {
	Head    uint64        `cbor:"1,keyasint"`
	End     store.Ordinal `cbor:"2,keyasint"`
	Ordinal store.Ordinal `cbor:"3,keyasint"`
	Path    []byte        `cbor:"4,keyasint,omitempty"`
}

// building reports whether the index does not have all records yet.
func (st *state) building() bool { return st.Epoch == "" || st.Pass != nil }

// parse reads a row of the state. Of another version it reads the version alone.
func (st *state) parse(value []byte) error {
	var row struct {
		Version uint64 `cbor:"1,keyasint"`
	}
	err := cbor.Unmarshal(value, &row)
	if err == nil && row.Version == stateVersion {
		err = cbor.Unmarshal(value, st)
	}
	if st.Version = row.Version; err != nil {
		return fmt.Errorf("state of the index of links: %w: %w", err, store.ErrCorrupt)
	}
	return nil
}

func (st *state) encode() ([]byte, error) {
	st.Version = stateVersion
	return cbor.Marshal(st)
}
