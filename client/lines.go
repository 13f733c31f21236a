package client

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"cistern/console"

	"github.com/mattn/go-runewidth"
)

// Lines shows events to a person, each as one line.
type Lines struct {
	term    *console.Terminal
	handles map[string]string // of the identity events that were shown, by DID

	idColumns int // of the widest id
}

// Widths of columns.
const (
	idColumns      = 6  // until ids are longer
	accountColumns = 32 // half of it unless the line is wide
	actionColumns  = 8
	pathColumns    = 38 // if the line is wide
	wideColumns    = 120
)

// handlesMax bounds the handles that are remembered, about 100 bytes each.
const handlesMax = 10_000

// NewLines returns lines as wide and as colourful as term.
func NewLines(term *console.Terminal) *Lines {
	return &Lines{term: term, handles: map[string]string{}, idColumns: idColumns}
}

// Line returns an event as a line: its id, the account, what happened, where, and the beginning of
// the record. On a terminal the line is no wider than that; elsewhere nothing is cut.
func (l *Lines) Line(e *Event) string {
	did, action, color, where, what := "", e.Type, console.Cyan, "", ""
	switch {
	case e.Record != nil:
		r := e.Record
		did, action, color, where = r.DID, r.Action, actionColor(r.Action), r.Collection+"/"+r.Rkey
		if what = r.Unrepresentable; what == "" {
			what = excerpt(r.Record)
		}
	case e.Account != nil:
		did, where = e.Account.DID, "active"
		if !e.Account.Active {
			where, color = "inactive", console.Red
		}
		what = e.Account.Status
	case e.Identity != nil:
		did, where, what = e.Identity.DID, e.Identity.Handle, e.Identity.PDS
		l.remember(did, e.Identity.Handle)
	case e.Repo != nil:
		did, where, color, what = e.Repo.DID, e.Repo.State, stateColor(e.Repo.State), cause(e.Repo)
	}
	l.idColumns = max(l.idColumns, len(strconv.FormatUint(e.ID, 10)))
	account := runewidth.FillRight(l.account(did), l.accountColumns())
	if what != "" && l.term.Columns() >= wideColumns {
		where = runewidth.FillRight(where, pathColumns)
	}
	action = runewidth.FillRight(console.Printable(action), actionColumns)
	return l.row([]cell{{console.Dim, fmt.Sprintf("%*d", l.idColumns, e.ID)}, {"", account},
		{color, action}, {"", where}, {console.Dim, what}})
}

// cell is a text with its colour.
type cell struct{ color, text string }

// row joins cells. On a terminal it cuts them where the line ends.
func (l *Lines) row(cells []cell) string {
	var b strings.Builder
	left := l.term.Columns() - 1
	for i, c := range cells {
		text := console.Printable(c.text)
		if l.term.Live() {
			text = console.Clip(text, left)
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(l.term.Paint(c.color, text))
		if l.term.Live() {
			if left -= runewidth.StringWidth(text) + 1; left <= 0 {
				break
			}
		}
	}
	return strings.TrimRight(b.String(), " ")
}

func actionColor(action string) string {
	switch action {
	case "create":
		return console.Green
	case "update":
		return console.Yellow
	}
	return console.Red
}

func stateColor(state string) string {
	switch state {
	case "synced":
		return console.Green
	case "pending":
		return console.Yellow
	}
	return console.Red
}

// cause returns why a repository is failing or gone, since when, and when its host is asked again;
// of other repositories the rev of the copy.
func cause(r *Repo) string {
	if r.Reason == "" {
		return r.Rev
	}
	text := r.Reason
	if !r.Since.IsZero() {
		text += ", since " + r.Since.Format(time.RFC3339)
	}
	if !r.NextLook.IsZero() {
		text += ", next look " + r.NextLook.Format(time.RFC3339)
	}
	return text
}

// remember keeps the handle of an account for the events that follow.
func (l *Lines) remember(did, handle string) {
	if len(l.handles) >= handlesMax {
		clear(l.handles)
	}
	l.handles[console.Printable(did)] = console.Printable(handle)
}

// accountColumns returns the room for an account.
func (l *Lines) accountColumns() int {
	if l.term.Columns() >= wideColumns {
		return accountColumns
	}
	return accountColumns / 2
}

// account returns the handle or the DID of an account: on a terminal in the room that there is.
func (l *Lines) account(did string) string {
	const end = 5 // characters of a DID that are shown behind the gap
	did = console.Printable(did)
	if !l.term.Live() {
		return did
	}
	columns := l.accountColumns()
	if handle := l.handles[did]; handle != "" {
		return console.Clip(handle, columns)
	}
	if runes := []rune(did); len(runes) > columns {
		did = string(runes[:columns-end-1]) + "…" + string(runes[len(runes)-end:])
	}
	return did
}

// excerpt returns what a person wants to see first of a record: its text, what it refers to, or its
// name. Of any other record it is the JSON.
func excerpt(record json.RawMessage) string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(record, &fields) != nil {
		return ""
	}
	for _, name := range []string{"text", "subject", "name", "displayName"} {
		var text string
		var ref struct{ URI string }
		if json.Unmarshal(fields[name], &text) != nil && json.Unmarshal(fields[name], &ref) == nil {
			text = ref.URI
		}
		if text = strings.Join(strings.Fields(text), " "); text != "" {
			return text
		}
	}
	delete(fields, "$type")
	delete(fields, "createdAt")
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if len(fields) == 0 || encoder.Encode(fields) != nil {
		return ""
	}
	return strings.TrimSpace(b.String())
}

// Row returns an event as the daemon sent it, for a row of JSON lines. On a terminal the characters
// that could drive it are escaped, which changes no value.
func (l *Lines) Row(e *Event) string {
	if !l.term.Live() {
		return string(e.JSON)
	}
	return console.EscapeJSON(string(e.JSON))
}
