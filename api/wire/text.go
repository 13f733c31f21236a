package wire

import (
	"errors"
	"unicode/utf8"

	"cistern/ingest/repo/recordjson"
)

const hexDigits = "0123456789abcdef"

// AppendString appends s as a JSON string. Invalid UTF-8 becomes U+FFFD. Most strings are short and
// need no escape, so the loop looks for the first byte that needs one.
func AppendString[S string | []byte](dst []byte, s S) []byte {
	dst = append(dst, '"')
	for i := range len(s) {
		if b := s[i]; b < ' ' || b == '"' || b == '\\' || b >= utf8.RuneSelf {
			return appendEscaped(append(dst, s[:i]...), string(s[i:]))
		}
	}
	return append(append(dst, s...), '"')
}

// appendEscaped appends the rest of a string that needs escapes, and the closing quote.
func appendEscaped(dst []byte, s string) []byte {
	for _, r := range s { // a range yields U+FFFD for each byte that is not UTF-8
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == '\n':
			dst = append(dst, '\\', 'n')
		case r < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[r>>4], hexDigits[r&15])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}

// AppendBody appends a record as one more field of an object. If the record has no JSON form (a
// float, an integer beyond 64 bits, more than 1 MiB, and whatever else recordjson.Append refuses),
// the field is "unrepresentable" with the reason instead, and ok is false.
func AppendBody(out []byte, name string, record []byte) (_ []byte, ok bool) {
	mark := len(out)
	out = append(append(append(out, `,"`...), name...), `":`...)
	out, err := recordjson.Append(out, record)
	if err == nil {
		return out, true
	}
	reason := "not valid"
	var why *recordjson.Error
	if errors.As(err, &why) {
		reason = why.Reason()
	}
	return AppendString(append(out[:mark], `,"unrepresentable":`...), reason), false
}
