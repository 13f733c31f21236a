package api

import "unicode/utf8"

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string. Invalid UTF-8 becomes U+FFFD. Most strings are short and
// need no escape, so the loop looks for the first byte that does.
func appendString[S string | []byte](dst []byte, s S) []byte {
	dst = append(dst, '"')
	for i := range len(s) {
		if b := s[i]; b < ' ' || b == '"' || b == '\\' || b >= utf8.RuneSelf {
			return appendEscaped(append(dst, s[:i]...), string(s[i:]))
		}
	}
	return append(append(dst, s...), '"')
}

// appendEscaped appends the rest of a string that needs care, and the closing quote.
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
