package copies

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line returns a text as one line of at most most bytes, without characters that check refuses.
// Line ends become semicolons: an error that joins others has one line for each.
func Line(text string, most int) string {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }),
		"; ")
	text = strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) || r == utf8.RuneError {
			return '·'
		}
		return r
	}, text)
	if len(text) <= most {
		return text
	}
	const cut = "…"
	text = text[:most-len(cut)]
	for !utf8.ValidString(text) {
		text = text[:len(text)-1]
	}
	return text + cut
}

// check returns an error if a text is longer than most bytes, or has a character that could control
// a terminal.
func check(name, text string, most int) error {
	if len(text) > most {
		return fmt.Errorf("%s has %d bytes: want at most %d", name, len(text), most)
	}
	if !utf8.ValidString(text) {
		return fmt.Errorf("%s %.80q is not UTF-8", name, text)
	}
	for _, r := range text {
		if !unicode.IsGraphic(r) {
			return fmt.Errorf("%s has the character %U: want characters that can be printed", name, r)
		}
	}
	return nil
}
