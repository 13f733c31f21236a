package main

import (
	"fmt"
	"strings"
)

const rootHelp = `Cistern keeps a complete, verified, queryable copy of AT Protocol repositories.

Usage:
  cistern COMMAND [options]

Commands:
  demo      index a simulated network on this machine and show what one can ask
  run       run the daemon
  repo      add, list, inspect, resync and remove repositories of a running daemon
  check     verify a store offline
  version   print the version of this binary

Start here:
  cistern demo                                    no network needed, ends with Ctrl-C
  cistern run                                     an empty index, and then:
  cistern repo add did:plc:ewvi7nxzyoun6zhxrhs64oiz
  curl 'localhost:2481/xrpc/com.atproto.repo.describeRepo?repo=did:plc:ewvi7nxzyoun6zhxrhs64oiz'

'cistern COMMAND --help' tells more.
`

// helpColumns is the width that help is wrapped to.
const helpColumns = 80

// helpText lays out a command's help page. rows are its options.
func helpText(usage, about string, rows []helpRow, environment bool, examples string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:\n  %s\n\n%s\n", usage, wrap(about, 0))
	if len(rows) > 0 {
		b.WriteString("\nOptions:\n")
	}
	for _, r := range rows {
		fmt.Fprintf(&b, "  %s\n      %s\n", r.flag, wrap(r.help, 6))
	}
	if environment {
		b.WriteString("\n" + wrap("Every option is also a variable: --disk-reserve is CISTERN_DISK_RESERVE. Where an option "+
			"may be repeated, commas separate the values in its variable. A flag wins over its variable.", 0) + "\n")
	}
	fmt.Fprintf(&b, "\nExamples:\n%s\n", strings.TrimRight(examples, "\n"))
	return b.String()
}

type helpRow struct{ flag, help string }

// helpRows are the rows of options for a help page.
func helpRows(options []option) []helpRow {
	var rows []helpRow
	for _, o := range options {
		flag, help := strings.TrimSpace("--"+o.name+" "+o.value), o.help
		if o.repeat {
			flag += "  (repeatable)"
		}
		if o.standard != "" {
			help += " Default " + o.standard + "."
		}
		rows = append(rows, helpRow{flag, help})
	}
	return rows
}

// wrap breaks text at helpColumns; lines after the first are indented.
func wrap(text string, indent int) string { return wrapAt(text, indent, helpColumns) }

// wrapAt breaks text at columns.
func wrapAt(text string, indent, columns int) string {
	var b strings.Builder
	column := indent
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case column+1+textColumns(word) > columns:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += textColumns(word)
	}
	return b.String()
}
