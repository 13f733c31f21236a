package console

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"
	"github.com/mattn/go-runewidth"
)

// Count returns n with thousands separators, and the noun in the singular or plural.
func Count(n int64, noun string) string {
	return humanize.Comma(n) + " " + english.PluralWord(int(n), noun, "")
}

// Clip shortens text to a number of terminal columns, the last of them an ellipsis.
func Clip(text string, columns int) string { return runewidth.Truncate(text, columns, "…") }

// Printable replaces the characters that could control a terminal or reorder a line: hosts and
// accounts choose part of the printed text.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) {
			return r
		}
		return '·'
	}, text)
}

// EscapeJSON escapes the characters of a JSON text that Printable replaces. The value stays the
// same: outside of strings, JSON has no such character but white space.
func EscapeJSON(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case unicode.IsGraphic(r):
			b.WriteRune(r)
		case r <= ' ':
			b.WriteByte(' ')
		default:
			for _, unit := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(&b, `\u%04x`, unit)
			}
		}
	}
	return b.String()
}
