package format

import (
	"bytes"
	"encoding/base64"

	"cistern/ingest/repo"

	"github.com/ipfs/go-cid"
)

// Limits of the data model as strict clients in JavaScript read it.
const (
	// safeInteger is the largest number of JSON that JavaScript holds exactly.
	safeInteger = 1<<53 - 1
	// cidTextMax is the longest text of a CID that these clients parse.
	cidTextMax = 128
	// cidCodeMax bounds the codes in a CID, which these clients read as numbers.
	cidCodeMax = 1 << 49
)

// isStrict reports whether a record that has a JSON form is valid in the data model of the AT
// Protocol, as clients check that read with lexParse of @atproto/lex in its strict mode: integers
// are exact in JavaScript, and a map with a key $link, $bytes or $type has the form that the key
// announces.
func isStrict(record []byte) bool {
	s := strict{record}
	_, ok := s.value(0, true)
	return ok
}

// strict walks DAG-CBOR that package recordjson has accepted, which bounds its depth.
type strict struct{ in []byte }

// value returns the end of the value at a place. top is whether the value is the record.
func (s strict) value(at int, top bool) (next int, ok bool) {
	major, arg, next, ok := repo.Head(s.in, at)
	if !ok {
		return 0, false
	}
	switch major {
	case repo.MajorUint:
		return next, arg <= safeInteger
	case repo.MajorNint: // -1 - arg
		return next, arg < safeInteger
	case repo.MajorBytes, repo.MajorText:
		_, next, ok = repo.Span(s.in, at, major)
		return next, ok
	case repo.MajorArray:
		for range arg {
			if next, ok = s.value(next, false); !ok {
				return 0, false
			}
		}
		return next, true
	case repo.MajorMap:
		return s.object(next, arg, top)
	case repo.MajorTag:
		_, next, ok = s.link(at)
		return next, ok
	}
	return next, true
}

// object returns the end of a map of n entries, the first of which is at a place.
func (s strict) object(at int, n uint64, top bool) (next int, ok bool) {
	link, data, kind := 0, 0, 0 // places of the values of special keys; no value begins at 0
	first := at
	for range n {
		from, to, ok := repo.Span(s.in, at, repo.MajorText)
		if !ok {
			return 0, false
		}
		switch string(s.in[from:to]) {
		case "__proto__":
			return 0, false
		case "$link":
			link = to
		case "$bytes":
			data = to
		case "$type":
			kind = to
		}
		if at, ok = s.value(to, false); !ok {
			return 0, false
		}
	}
	switch {
	case link != 0: // in JSON a link, and then no map
		return at, !top && n == 1 && isCIDText(s.text(link))
	case data != 0: // likewise bytes
		return at, !top && n == 1 && isBase64(s.text(data))
	case kind != 0:
		name := s.text(kind)
		return at, len(name) > 0 && (string(name) != "blob" || s.blob(first, n))
	}
	return at, true
}

// blob reports whether the n entries of a map, the first of which is at a place, are a reference to
// a blob.
func (s strict) blob(at int, n uint64) bool {
	if n != 4 { // $type and the three below
		return false
	}
	valid := 0
	for range n {
		from, to, _ := repo.Span(s.in, at, repo.MajorText)
		switch string(s.in[from:to]) {
		case "mimeType":
			valid += truth(bytes.IndexByte(s.text(to), '/') >= 0)
		case "size":
			major, _, _, _ := repo.Head(s.in, to)
			valid += truth(major == repo.MajorUint)
		case "ref":
			c, _, ok := s.link(to)
			valid += truth(ok && len(c) > 1 && c[0] == 1 && c[1] == cid.Raw)
		}
		at, _ = s.value(to, false)
	}
	return valid == 3
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// text returns the text at a place, nil if it is another value.
func (s strict) text(at int) []byte {
	from, to, ok := repo.Span(s.in, at, repo.MajorText)
	if !ok {
		return nil
	}
	return s.in[from:to]
}

// link returns the CID at a place, in bytes, and its end. ok is false if clients cannot read it.
func (s strict) link(at int) (c []byte, next int, ok bool) {
	major, arg, at, ok := repo.Head(s.in, at)
	if !ok || major != repo.MajorTag || arg != repo.TagLink {
		return nil, 0, false
	}
	from, to, ok := repo.Span(s.in, at, repo.MajorBytes)
	if !ok || from == to {
		return nil, 0, false
	}
	c = s.in[from+1 : to]
	usual := len(c) == repo.CIDBytes && c[0] == 1 && c[2] == 0x12 && c[3] == 0x20
	if usual && (c[1] == cid.Raw || c[1] == cid.DagCBOR) {
		return c, to, true
	}
	parsed, err := cid.Cast(c)
	return c, to, err == nil && isReadable(parsed)
}

// isReadable reports whether clients can read the text of a CID.
func isReadable(c cid.Cid) bool {
	p := c.Prefix()
	return len(c.String()) <= cidTextMax && p.Codec < cidCodeMax && p.MhType < cidCodeMax
}

// isCIDText reports whether a text is a CID in the form that links have.
func isCIDText(text []byte) bool {
	if len(text) > cidTextMax {
		return false
	}
	c, err := cid.Decode(string(text))
	return err == nil && c.String() == string(text) && isReadable(c)
}

// isBase64 reports whether a text is base64, without or with padding. nil is not.
func isBase64(text []byte) bool {
	if text == nil {
		return false
	}
	raw, err := base64.RawStdEncoding.Strict().DecodeString(string(bytes.TrimRight(text, "=")))
	if err != nil {
		return false
	}
	with := base64.StdEncoding.EncodeToString(raw)
	return string(text) == with || string(text) == string(bytes.TrimRight([]byte(with), "="))
}
