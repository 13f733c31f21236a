package links

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"cistern/ingest/repo"
)

// Limits of records and their links.
const (
	// recordBytesMax is the protocol's limit on a record.
	recordBytesMax = 1 << 20
	// depthMax bounds how deeply arrays and maps nest; the protocol recommends 32.
	depthMax = 128
	// linksMax bounds the links of a record: 1 MiB holds 16,384 texts of 63 bytes, a little less than
	// the at-uri of a record has. Shorter texts could make rows many times as long as the record.
	linksMax = 16 << 10
	// pathBytesMax bounds a path: five lists in lists of a rich document take 600 bytes.
	pathBytesMax = 1024
)

// Link is one link of a record.
type Link struct {
	// Path is the place in the record: the keys of the maps that lead there, each behind a dot, and for
	// an element of an array [], or [T] if the element is a map whose $type is T. Dots in keys are
	// not escaped. Examples: .subject.uri, .facets[app.bsky.richtext.facet].features[...].uri
	Path string
	// Target is an at-uri, a DID or another absolute URI, as Normalise returns it.
	Target string
}

// Extract appends the links of a record, a map in DAG-CBOR, in the order of its bytes. A text that
// stands twice at one path is two equal links. A text longer than targetBytesMax, or at a path
// longer than pathBytesMax, is no link. Links to blocks (CIDs) and blobs are no links.
//
// If the record is no DAG-CBOR or exceeds 1 MiB, nesting of 128 or linksMax, Extract returns
// repo.ErrInvalid and dst unchanged. The strings of one record share their memory.
func Extract(dst []Link, record []byte) ([]Link, error) {
	w := walk{in: record}
	if err := w.record(); err != nil {
		return dst, fmt.Errorf("links of a record, byte %d: %w: %w", w.at, err, repo.ErrInvalid)
	}
	if w.candidates == 0 {
		return dst, nil
	}
	s := new(scratch)
	w.at, w.path, w.text, w.found = 0, s.path[:0], s.text[:0], s.found[:0]
	w.emit = true
	if err := w.record(); err != nil {
		return dst, fmt.Errorf("links of a record, byte %d: %w: %w", w.at, err, repo.ErrInvalid)
	}
	text := string(w.text)
	for _, f := range w.found {
		dst = append(dst, Link{Path: text[f.path:f.target], Target: text[f.target:f.end]})
	}
	return dst, nil
}

// walk goes over a record twice. The first time it checks the form, counts the texts that may be
// targets, and learns the $type of every map that is an element of an array: in the map, texts may
// stand before the $type that their paths have. The second time it gathers the links.
type walk struct {
	in []byte
	at int

	candidates int
	types      []span // of the maps in arrays, in the order in which they begin; empty without $type

	emit    bool // the second time
	element int  // in types, of the next map
	path    []byte
	text    []byte // paths and targets
	found   []place
}

// span is a part of the record.
type span struct{ from, to uint32 }

// place is where in walk.text a path and a target stand.
type place struct{ path, target, end uint32 }

// scratch is the first memory of a walk: enough for a post.
type scratch struct {
	path  [128]byte
	text  [512]byte
	found [8]place
}

var (
	errLength = errors.New("record exceeds 1 MiB")
	errTop    = errors.New("record is not a map")
	errTail   = errors.New("bytes after the record")
	errForm   = errors.New("not DAG-CBOR")
	errUTF8   = errors.New("key or $type is not UTF-8")
	errNested = errors.New("nested more than 128 deep")
	errMany   = errors.New("more than 16,384 links")
)

func (w *walk) record() error {
	switch {
	case len(w.in) > recordBytesMax:
		return errLength
	case len(w.in) == 0 || w.in[0]>>5 != repo.MajorMap:
		return errTop
	}
	if err := w.value(depthMax); err != nil {
		return err
	}
	if w.at != len(w.in) {
		return errTail
	}
	return nil
}

// value reads one value, in which arrays and maps may nest depth deep.
func (w *walk) value(depth int) error {
	major, arg, next, ok := repo.Head(w.in, w.at)
	if !ok {
		return errForm
	}
	switch major {
	case repo.MajorUint, repo.MajorNint:
		w.at = next
		return nil
	case repo.MajorText:
		return w.leaf()
	case repo.MajorArray:
		w.at = next
		return w.array(arg, depth-1)
	case repo.MajorMap:
		w.at = next
		return w.object(arg, depth-1, nil)
	case repo.MajorTag:
		if arg != repo.TagLink {
			return errForm
		}
		w.at = next
		return w.bytes()
	case repo.MajorBytes:
		return w.bytes()
	}
	switch w.in[w.at] {
	case repo.CBORFalse, repo.CBORTrue, repo.CBORNull:
		w.at = next
		return nil
	}
	return errForm
}

func (w *walk) bytes() error {
	_, to, ok := repo.Span(w.in, w.at, repo.MajorBytes)
	if !ok {
		return errForm
	}
	w.at = to
	return nil
}

func (w *walk) array(n uint64, depth int) error {
	if depth < 0 {
		return errNested
	}
	end := len(w.path)
	for range n {
		major, arg, next, ok := repo.Head(w.in, w.at)
		if !ok {
			return errForm
		}
		var err error
		if major == repo.MajorMap {
			w.at = next
			err = w.elementMap(arg, depth)
		} else {
			if w.emit {
				w.path = append(w.path, "[]"...)
			}
			err = w.value(depth)
		}
		if err != nil {
			return err
		}
		w.path = w.path[:end]
	}
	return nil
}

// elementMap reads a map of n entries that is an element of an array.
func (w *walk) elementMap(n uint64, depth int) error {
	if w.emit {
		named := w.types[w.element]
		w.element++
		w.path = append(w.path, '[')
		w.path = append(w.path, w.in[named.from:named.to]...)
		w.path = append(w.path, ']')
		return w.object(n, depth-1, nil)
	}
	i := len(w.types)
	w.types = append(w.types, span{})
	var named span
	if err := w.object(n, depth-1, &named); err != nil {
		return err
	}
	w.types[i] = named
	return nil
}

// object reads the n entries of a map, and sets named, unless it is nil, to the text of its $type.
func (w *walk) object(n uint64, depth int, named *span) error {
	if depth < 0 {
		return errNested
	}
	end := len(w.path)
	for range n {
		from, to, ok := repo.Span(w.in, w.at, repo.MajorText)
		if !ok {
			return errForm
		}
		key := w.in[from:to]
		switch {
		case w.emit:
			w.path = append(append(w.path, '.'), key...)
		case !utf8.Valid(key):
			return errUTF8
		case named != nil && string(key) == "$type":
			from, to, ok := repo.Span(w.in, to, repo.MajorText)
			if ok && !utf8.Valid(w.in[from:to]) {
				return errUTF8
			}
			*named = span{uint32(from), uint32(to)}
		}
		w.at = to
		if err := w.value(depth); err != nil {
			return err
		}
		w.path = w.path[:end]
	}
	return nil
}

// leaf reads a text: the first time it counts what may be a target, then it gathers targets.
func (w *walk) leaf() error {
	from, to, ok := repo.Span(w.in, w.at, repo.MajorText)
	if !ok {
		return errForm
	}
	w.at = to
	s := w.in[from:to]
	if !w.emit {
		if len(s) <= targetBytesMax && schemeEnd(s) > 0 {
			w.candidates++
		}
		return nil
	}
	if len(w.path) > pathBytesMax {
		return nil
	}
	path := len(w.text)
	text := append(w.text, w.path...)
	target := len(text)
	text, ok = appendTarget(text, s)
	if !ok {
		return nil
	}
	if len(w.found) == linksMax {
		return errMany
	}
	w.text = text
	w.found = append(w.found, place{uint32(path), uint32(target), uint32(len(text))})
	return nil
}
