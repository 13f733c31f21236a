package links

import (
	"errors"
	"fmt"
	"iter"
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
	// keptBytesMax bounds each part of the memory that a Finder keeps for the next record.
	keptBytesMax = 1 << 20
)

// Link is one link of a record.
type Link struct {
	// Path is the place in the record: the keys of the maps that lead there, each behind a dot, and
	// for an element of an array [], or [T] if the element is a map whose $type is T. Dots in keys are
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
	var s scratch
	w := walk{path: s.path[:0], text: s.text[:0], found: s.found[:0]}
	if err := w.run(record); err != nil || len(w.found) == 0 {
		return dst, err
	}
	text := string(w.text)
	for _, f := range w.found {
		dst = append(dst, Link{Path: text[f.path:f.target], Target: text[f.target:f.end]})
	}
	return dst, nil
}

// Finder finds the links of one record after the other as Extract does, in memory that it keeps.
// The zero Finder is ready to use.
type Finder struct{ walk walk }

// Find finds the links of a record. Its errors are those of Extract; All yields nothing after one.
func (f *Finder) Find(record []byte) error {
	if w := &f.walk; max(cap(w.path), cap(w.text), 8*cap(w.types)) > keptBytesMax {
		f.walk = walk{}
	}
	return f.walk.run(record)
}

// All yields the path and the target of each link of the record of the last Find, in the order of
// the record's bytes. They are valid until the next call of Find.
func (f *Finder) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(path, target []byte) bool) {
		text := f.walk.text
		for _, p := range f.walk.found {
			if !yield(text[p.path:p.target], text[p.target:p.end]) {
				return
			}
		}
	}
}

// walk goes over a record, checks its form and gathers the links. A map that is an element of an
// array has its $type in the paths of what stands in it, also before the $type. The $type is looked
// for ahead, up to the first array or map within; if it stands behind one that has links, the walk
// goes over the record once more, with the $type of every such map.
type walk struct {
	in []byte
	at int

	path  []byte
	text  []byte // paths and targets
	found []place

	types      []span // of the maps in arrays, in the order in which they begin; empty without $type
	element    int    // in types, of the next map
	candidates int    // texts that may be targets
	late       bool   // a path has another $type than its map
	again      bool   // this is the second time: types are those of the maps
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

// run finds the links of a record.
func (w *walk) run(record []byte) error {
	w.in, w.types, w.again = record, w.types[:0], false
	err := w.record()
	if err == nil && w.late {
		w.again = true
		err = w.record()
	}
	if err != nil {
		w.found = w.found[:0]
		return fmt.Errorf("links of a record, byte %d: %w: %w", w.at, err, repo.ErrInvalid)
	}
	return nil
}

// record goes over the record once.
func (w *walk) record() error {
	w.at, w.element, w.candidates, w.late = 0, 0, 0, false
	w.path, w.text, w.found = w.path[:0], w.text[:0], w.found[:0]
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
		if arg > uint64(len(w.in)-next) {
			return errForm
		}
		w.at = next + int(arg)
		return w.leaf(w.in[next:w.at])
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
			w.path = append(w.path, "[]"...)
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
	i := w.element
	w.element++
	if !w.again {
		w.types = append(w.types, w.ahead(n))
	}
	taken, candidates := w.types[i], w.candidates
	w.path = append(w.path, '[')
	w.path = append(w.path, w.in[taken.from:taken.to]...)
	w.path = append(w.path, ']')
	var named span
	if err := w.object(n, depth-1, &named); err != nil {
		return err
	}
	if named != taken {
		w.types[i] = named
		w.late = w.late || w.candidates > candidates
	}
	return nil
}

// ahead returns the $type of a map of n entries that begins at w.at, unless it stands behind an
// array, a map or a CID. So it reads no byte for more than one map.
func (w *walk) ahead(n uint64) (named span) {
	at := w.at
	for range n {
		from, to, ok := repo.Span(w.in, at, repo.MajorText)
		if !ok {
			return span{}
		}
		key := w.in[from:to]
		major, arg, next, ok := repo.Head(w.in, to)
		if !ok {
			return span{}
		}
		switch major {
		case repo.MajorText, repo.MajorBytes:
			if arg > uint64(len(w.in)-next) {
				return span{}
			}
			at = next + int(arg)
			if major == repo.MajorText && string(key) == "$type" {
				return span{uint32(next), uint32(at)}
			}
		case repo.MajorUint, repo.MajorNint, repo.MajorSimple:
			at = next
		default:
			return span{}
		}
	}
	return span{}
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
		if !utf8.Valid(key) {
			return errUTF8
		}
		if named != nil && string(key) == "$type" {
			from, to, ok := repo.Span(w.in, to, repo.MajorText)
			if ok && !utf8.Valid(w.in[from:to]) {
				return errUTF8
			}
			*named = span{uint32(from), uint32(to)}
		}
		w.path = append(append(w.path, '.'), key...)
		w.at = to
		if err := w.value(depth); err != nil {
			return err
		}
		w.path = w.path[:end]
	}
	return nil
}

// leaf takes a text as a link if it is a target.
func (w *walk) leaf(s []byte) error {
	if len(s) > targetBytesMax || schemeEnd(s) <= 0 {
		return nil
	}
	w.candidates++
	if len(w.path) > pathBytesMax {
		return nil
	}
	path := len(w.text)
	text := append(w.text, w.path...)
	target := len(text)
	text, ok := appendTarget(text, s)
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
