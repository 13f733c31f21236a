package main

import (
	"strings"
	"unicode"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"
	"github.com/mattn/go-runewidth"
)

// count writes n with thousands separators, and the noun in the number that n needs.
func count(n int64, noun string) string {
	return humanize.Comma(n) + " " + english.PluralWord(int(n), noun, "")
}

// clip shortens text to a number of terminal columns, the last of them an ellipsis.
func clip(text string, columns int) string { return runewidth.Truncate(text, columns, "…") }

// printable replaces the characters that could drive a terminal or reorder a line: hosts and
// accounts choose part of what is printed.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) {
			return r
		}
		return '·'
	}, text)
}
