package manifest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"
)

// Name is the name of a manifest, which is written when all else is.
const Name = "manifest.json"

// Manifest describes a complete export.
type Manifest struct {
	Format       string    `json:"format"` // "car"
	Epoch        string    `json:"epoch"`  // of the log
	Head         uint64    `json:"head"`   // newest event of the store when the export began
	DIDs         []string  `json:"dids,omitempty"`
	Begun        time.Time `json:"begun"`
	Ended        time.Time `json:"ended"`
	Repositories int64     `json:"repositories"` // with a CAR
	LeftOut      int64     `json:"left_out"`     // without
	Damaged      int64     `json:"damaged"`      // of LeftOut: the copy does not agree with its commit
	Records      int64     `json:"records"`
	Bytes        int64     `json:"bytes"` // of CARs
	// Resumed says that the export goes on with an earlier archive: what it counts and names is that
	// of the last one.
	Resumed bool   `json:"resumed,omitempty"`
	Parts   []Part `json:"parts"`
}

// Part is a part of the manifest.
type Part struct {
	Name  string `json:"name"`
	Lines int64  `json:"lines"`
	Bytes int64  `json:"bytes"`
	SHA   string `json:"sha256"`
}

// New returns the manifest of an export that begins at a time, as of a head of a log.
func New(epoch string, head uint64, dids []string, begun time.Time) Manifest {
	return Manifest{Format: "car", Epoch: epoch, Head: head, DIDs: dids,
		Begun: whole(begun), Parts: []Part{}}
}

// whole returns a time as a manifest has it.
func whole(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// End records when the export ended.
func (m *Manifest) End(now time.Time) { m.Ended = whole(now) }

// Add adds a part, and counts its lines.
func (m *Manifest) Add(p Part, lines []Line) {
	m.Parts = append(m.Parts, p)
	for i := range lines {
		l := &lines[i]
		if l.LeftOut != "" {
			m.LeftOut++
			if l.LeftOut == Mismatch {
				m.Damaged++
			}
			continue
		}
		m.Repositories++
		m.Records += l.Records
		m.Bytes += l.Bytes
	}
}

// Encode returns the text of lines, and the part of a name that has them.
func Encode(name string, lines []Line) (text []byte, p Part, err error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	for i := range lines {
		if err := encoder.Encode(&lines[i]); err != nil {
			return nil, p, err
		}
	}
	sum := sha256.Sum256(out.Bytes())
	p = Part{Name: name, Lines: int64(len(lines)), Bytes: int64(out.Len()),
		SHA: hex.EncodeToString(sum[:])}
	return out.Bytes(), p, nil
}

// JSON returns the text of a manifest, or of another object beside it.
func JSON(value any) ([]byte, error) {
	text, err := json.MarshalIndent(value, "", " ")
	return append(text, '\n'), err
}
