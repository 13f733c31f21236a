package backlinks

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"

	"cistern/api/wire"
	"cistern/links"
	"cistern/store/linkindex"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// scope is what a query is about: links to a target from a source.
type scope struct {
	target string
	source linkindex.Source
}

// scopeOf returns the scope that subject and source name. A source is written collection:path, and
// its path without the leading dot.
func scopeOf(q wire.Query) (s scope, err error) {
	if s.target, err = targetOf(q, "subject"); err != nil {
		return s, err
	}
	text, err := q.Required("source")
	if err != nil {
		return s, err
	}
	collection, path, ok := strings.Cut(text, ":")
	if !ok {
		return s, wire.Invalid("source %s has no colon: want COLLECTION:PATH", wire.Echo(text))
	}
	s.source = linkindex.Source{Collection: collection, Path: "." + path}
	return s, checkCollection(collection)
}

// olderScope returns the scope of the older routes: target, collection, and path with its dot.
func olderScope(q wire.Query) (s scope, err error) {
	if s.target, err = targetOf(q, "target"); err != nil {
		return s, err
	}
	if s.source.Collection, err = q.Required("collection"); err != nil {
		return s, err
	}
	if s.source.Path, err = q.Required("path"); err != nil {
		return s, err
	}
	return s, checkCollection(s.source.Collection)
}

func checkCollection(text string) error {
	if _, err := syntax.ParseNSID(text); err != nil {
		return wire.Invalid("collection %s is not an NSID", wire.Echo(text))
	}
	return nil
}

// targetOf returns the normal form of a required parameter that names a subject.
func targetOf(q wire.Query, name string) (string, error) {
	text, err := q.Required(name)
	if err != nil {
		return "", err
	}
	return normal(name, text)
}

func normal(name, text string) (string, error) {
	target, ok := links.Normalise(text)
	if !ok {
		return "", wire.Invalid("%s %s is neither an at-uri nor a DID nor another absolute URI, so that "+
			"nothing can link to it", name, wire.Echo(text))
	}
	return target, nil
}

// checkDIDs refuses a parameter that names too many accounts. A text that is no DID names none.
func checkDIDs(name string, dids []string) error {
	if len(dids) > didsMax {
		return wire.Invalid("%s names %d accounts: want at most %d", name, len(dids), didsMax)
	}
	return nil
}

// othersOf returns the set of subjects that the parameter otherSubject names, nil for all.
func othersOf(q wire.Query) ([]string, error) {
	const name = "otherSubject"
	given := q.All(name)
	if len(given) > othersMax {
		return nil, wire.Invalid("%s is given %d times: want at most %d", name, len(given), othersMax)
	}
	var others []string
	for _, text := range given {
		target, err := normal(name, text)
		if err != nil {
			return nil, err
		}
		others = append(others, target)
	}
	slices.Sort(others)
	return others, nil
}

// numbersOf returns the n numbers of a cursor and the text behind them, zeros without a cursor.
func numbersOf(q wire.Query, n int) (numbers []uint64, rest string, err error) {
	numbers = make([]uint64, n)
	text := q.Text("cursor")
	if text == "" {
		return numbers, "", nil
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) < 8*n {
		return nil, "", badCursor(q)
	}
	for i := range numbers {
		if numbers[i] = binary.BigEndian.Uint64(b[8*i:]); numbers[i] > arrivalMax {
			return nil, "", badCursor(q)
		}
	}
	return numbers, string(b[8*n:]), nil
}

func badCursor(q wire.Query) error {
	return wire.Invalid("cursor %s was not given by this server", wire.Echo(q.Text("cursor")))
}

// cursorOf returns the cursor of numbers and a text.
func cursorOf(rest string, numbers ...uint64) string {
	var b []byte
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return hex.EncodeToString(append(b, rest...))
}
