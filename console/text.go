package console

import (
	"strings"
	"unicode"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"
	"github.com/mattn/go-runewidth"
)

// Count writes n with thousands separators, and the noun in the number that n needs.
func Count(n int64, noun string) string {
	return humanize.Comma(n) + " " + english.PluralWord(int(n), noun, "")
}

// Clip shortens text to a number of terminal columns, the last of them an ellipsis.
func Clip(text string, columns int) string { return runewidth.Truncate(text, columns, "…") }

// Printable replaces the characters that could drive a terminal or reorder a line: hosts and
// accounts choose part of what is printed.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) {
			return r
		}
		return '·'
	}, text)
}
