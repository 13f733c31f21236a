package dump

import (
	"encoding/base64"
	"io"
	"strconv"
	"time"

	"cistern/api/wire"
	"cistern/store"
)

// ndjson writes a line for each record.
type ndjson struct {
	w      io.Writer
	reader *Reading
	cbor   bool
	tokens bool

	head     []byte // what consecutive lines of one rev have in common
	did, rev string // of head
	since    int    // lines since the last token
}

func newNDJSON(w io.Writer, r *Reading, o FileOptions) file {
	return &ndjson{w: w, reader: r, cbor: o.CBOR, tokens: o.Tokens}
}

func (f *ndjson) add(p *page, ev *store.Event) {
	if ev.DID != f.did || ev.Rev != f.rev || f.head == nil {
		f.did, f.rev = ev.DID, ev.Rev
		head := wire.AppendString(append(f.head[:0], `{"did":`...), ev.DID)
		head = wire.AppendString(append(head, `,"rev":`...), ev.Rev)
		micros, ok := revTime(ev.Rev)
		head = appendTime(append(head, `,"indexed_at":`...), micros, ok)
		f.head = append(head, `,"collection":`...)
	}
	out := wire.AppendString(append(p.text, f.head...), ev.Collection)
	out = wire.AppendString(append(out, `,"rkey":`...), ev.Rkey)
	out = ev.CID.AppendText(append(out, `,"cid":"`...))
	micros, ok := createdAt(ev.Record)
	out = appendTime(append(out, `","created_at":`...), micros, ok)
	out, _ = wire.AppendBody(out, "record", ev.Record)
	if f.cbor {
		out = append(out, `,"cbor":"`...)
		out = append(base64.StdEncoding.AppendEncode(out, ev.Record), '"')
	}
	p.text = append(out, "}\n"...)
}

// appendTime appends a time as a JSON string, or null: in UTC and with six digits of the second, so
// that texts are in the order of the times. The year has four digits. AppendFormat of package time
// would take a fifth of what a line takes.
func appendTime(dst []byte, micros int64, ok bool) []byte {
	if !ok {
		return append(dst, "null"...)
	}
	t := time.UnixMicro(micros).UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	dst = appendDigits(append(dst, '"'), year, 4)
	dst = appendDigits(append(dst, '-'), int(month), 2)
	dst = appendDigits(append(dst, '-'), day, 2)
	dst = appendDigits(append(dst, 'T'), hour, 2)
	dst = appendDigits(append(dst, ':'), minute, 2)
	dst = appendDigits(append(dst, ':'), second, 2)
	dst = appendDigits(append(dst, '.'), t.Nanosecond()/1000, 6)
	return append(dst, `Z"`...)
}

// appendDigits appends the last digits of a number.
func appendDigits(dst []byte, n, digits int) []byte {
	from := len(dst)
	dst = append(dst, "000000"[:digits]...)
	for i := len(dst) - 1; i >= from; i-- {
		dst[i] = byte('0' + n%10)
		n /= 10
	}
	return dst
}

func (f *ndjson) mark(p *page, token func() string) {
	if f.since += p.rows; f.tokens && f.since >= tokenEvery {
		f.since = 0
		p.text = appendToken(p.text, token())
	}
}

func appendToken(dst []byte, token string) []byte {
	return append(wire.AppendString(append(dst, `{"resume":`...), token), "}\n"...)
}

func (f *ndjson) write(p *page) error {
	_, err := f.w.Write(p.text)
	return err
}

func (f *ndjson) end(rows int64, token string) error {
	if !f.tokens {
		return nil
	}
	line := []byte(`{"complete":true,"epoch":`)
	line = append(wire.AppendString(line, f.reader.Epoch()), `,"head":`...)
	line = append(strconv.AppendUint(line, f.reader.Head(), 10), `,"rows":`...)
	line = append(strconv.AppendInt(line, rows, 10), "}\n"...)
	if token != "" {
		line = appendToken(nil, token)
	}
	_, err := f.w.Write(line)
	return err
}
