package repo

import "bytes"

// ValidPath reports whether key is a collection (an NSID), a slash and a record key.
func ValidPath(key []byte) bool {
	_, _, ok := SplitPath(key)
	return ok
}

// SplitPath cuts a valid path at its slash.
func SplitPath(key []byte) (collection, rkey []byte, ok bool) {
	slash := bytes.IndexByte(key, '/')
	if slash < 0 || !validNSID(key[:slash]) || !validRecordKey(key[slash+1:]) {
		return nil, nil, false
	}
	return key[:slash], key[slash+1:], true
}

// pathChecker is ValidPath for keys that come in order: it remembers the last valid collection.
type pathChecker struct {
	collection []byte // with the slash
}

func (p *pathChecker) valid(key []byte) bool {
	if n := len(p.collection); n > 0 && len(key) > n && string(key[:n]) == string(p.collection) {
		return validRecordKey(key[n:])
	}
	collection, _, ok := SplitPath(key)
	if ok {
		p.collection = append(p.collection[:0], key[:len(collection)+1]...)
	}
	return ok
}

// validNSID: three or more segments between dots, of 1 to 63 letters, digits and inner hyphens;
// the first begins with a letter, the last has no hyphen and begins with a letter.
func validNSID(s []byte) bool {
	if len(s) > collectionBytesMax {
		return false
	}
	for segments := 1; ; segments++ {
		dot := bytes.IndexByte(s, '.')
		if dot < 0 {
			return segments >= 3 && validName(s)
		}
		if !validLabel(s[:dot]) || segments == 1 && !isLetter(s[0]) {
			return false
		}
		s = s[dot+1:]
	}
}

// labelBytesMax is the length of a segment.
const labelBytesMax = 63

func validLabel(s []byte) bool {
	if len(s) == 0 || len(s) > labelBytesMax || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, b := range s {
		if !isLetter(b) && !isDigit(b) && b != '-' {
			return false
		}
	}
	return true
}

func validName(s []byte) bool {
	if len(s) == 0 || len(s) > labelBytesMax || !isLetter(s[0]) {
		return false
	}
	for _, b := range s {
		if !isLetter(b) && !isDigit(b) {
			return false
		}
	}
	return true
}

// validRecordKey: 1 to 512 letters, digits, and _ ~ . : - but neither "." nor "..".
func validRecordKey(s []byte) bool {
	if len(s) == 0 || len(s) > rkeyBytesMax || string(s) == "." || string(s) == ".." {
		return false
	}
	for _, b := range s {
		if !isLetter(b) && !isDigit(b) && b != '_' && b != '~' && b != '.' && b != ':' && b != '-' {
			return false
		}
	}
	return true
}

func isLetter(b byte) bool { return b|0x20 >= 'a' && b|0x20 <= 'z' }
func isDigit(b byte) bool  { return b >= '0' && b <= '9' }
