package intake

import "sync"

// Summary counts what became of the CARs of a source.
type Summary struct {
	New      int64 // repositories stored for the first time
	Updated  int64 // repositories whose stored copy was older
	NotNewer int64 // CARs that are not newer than the stored copy
	Refused  int64
	Bytes    int64 // of CARs that were read
}

// Refusal is a CAR that was not stored.
type Refusal struct {
	Path   string `json:"path"` // of the CAR in its source, as the source writes it
	DID    string `json:"did,omitempty"`
	Reason string `json:"reason"`
}

// newRefusal bounds what the source chooses of a refusal.
func newRefusal(path, did string, err error) Refusal {
	return Refusal{Path: clip(path, nameBytesMax), DID: did, Reason: clip(err.Error(), reasonBytesMax)}
}

// clip shortens text to a number of bytes.
func clip(text string, most int) string {
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

// results gathers what became of CARs.
type results struct {
	refused func(Refusal)

	// mu guards:
	mu       sync.Mutex
	sum      Summary
	failures int // in a row, for no fault of a CAR
}

// stored counts a CAR that was stored, or is not newer.
func (r *results) stored(of func(*Summary) *int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*of(&r.sum)++
	r.failures = 0
}

// refuse counts a CAR that is refused. blameless means that the CAR is not the reason. It reports
// whether too many CARs in a row were refused like that.
func (r *results) refuse(refusal Refusal, blameless bool) (over bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sum.Refused++
	r.refused(refusal)
	if !blameless {
		r.failures = 0
		return false
	}
	r.failures++
	return r.failures >= failuresMax
}

// read counts bytes.
func (r *results) read(bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sum.Bytes += bytes
}

func (r *results) summary() Summary {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sum
}
