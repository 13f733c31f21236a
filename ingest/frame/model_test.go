package frame_test

import (
	"bytes"
	"errors"
	"io"
	"math/big"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"

	"cistern/ingest/frame"
	"cistern/ingest/repo"
)

// verdict is the decision of the model on a message.
type verdict int

const (
	unjudged verdict = iota // the model cannot decide
	accepted
	refused
)

// model decodes a message with the general CBOR decoder and maps.
type model struct {
	dec cbor.DecMode
	bad bool
}

func newModel() (*model, error) {
	// Undefined would be decoded as null; it is left unjudged.
	simple, err := cbor.NewSimpleValueRegistryFromDefaults(cbor.WithRejectedSimpleValue(23))
	if err != nil {
		return nil, err
	}
	dec, err := cbor.DecOptions{
		SimpleValues: simple,
		DupMapKey:    cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		MaxNestedLevels: 16, UTF8: cbor.UTF8DecodeInvalid,
	}.DecMode()
	return &model{dec: dec}, err
}

// decode returns the frame that a message should be decoded to.
func (m *model) decode(message []byte) (frame.Frame, verdict) {
	header, rest, v := m.first(message)
	if v != accepted {
		return frame.Frame{}, v
	}
	body, rest, v := m.first(rest)
	switch {
	case v != accepted:
		return frame.Frame{}, v
	case exotic(header) || exotic(body) || bytes.Contains(message, []byte("\xd9\xd9\xf7")):
		return frame.Frame{}, unjudged // its encoding may have another length
	case len(rest) > 0 || len(again(header))+len(again(body)) != len(message):
		return frame.Frame{}, refused // a head is not in its shortest form
	}
	m.bad = false
	f := frame.Frame{Kind: m.header(header)}
	if !m.bad {
		m.body(&f, body)
	}
	if m.bad {
		return frame.Frame{}, refused
	}
	return f, accepted
}

// first decodes the first item. Malformed input is refused. Input that only the general decoder
// refuses is unjudged.
func (m *model) first(b []byte) (item any, rest []byte, v verdict) {
	rest, err := m.dec.UnmarshalFirst(b, &item)
	var syntax *cbor.SyntaxError
	switch {
	case err == nil:
		return item, rest, accepted
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &syntax):
		return nil, nil, refused
	}
	return nil, nil, unjudged
}

func again(item any) []byte {
	b, err := cbor.Marshal(item)
	if err != nil {
		return nil
	}
	return b
}

// exotic reports whether the encoding of a value may have another length.
func exotic(item any) bool {
	switch v := item.(type) {
	case float64, time.Time, big.Int, *big.Int:
		return true
	case cbor.Tag:
		return exotic(v.Content)
	case []any:
		for _, e := range v {
			if exotic(e) {
				return true
			}
		}
	case map[any]any:
		for k, e := range v {
			if exotic(k) || exotic(e) {
				return true
			}
		}
	}
	return false
}

// is refuses the message unless a condition holds.
func (m *model) is(ok bool) bool {
	m.bad = m.bad || !ok
	return ok
}

func (m *model) fields(item any) map[any]any {
	fields, ok := item.(map[any]any)
	m.is(ok)
	for key := range fields {
		_, ok := key.(string)
		m.is(ok)
	}
	return fields
}

func (m *model) header(item any) frame.Kind {
	fields := m.fields(item)
	t := ""
	if v, ok := fields["t"]; ok {
		t, ok = v.(string)
		m.is(ok)
	}
	switch op := fields["op"].(type) {
	case uint64:
		if op == 1 {
			return map[string]frame.Kind{
				"#commit": frame.KindCommit, "#sync": frame.KindSync, "#identity": frame.KindIdentity,
				"#account": frame.KindAccount, "#info": frame.KindInfo,
			}[t]
		}
	case int64:
		if op == -1 {
			return frame.KindError
		}
	default:
		m.bad = true
	}
	return frame.KindUnknown
}

func (m *model) body(f *frame.Frame, item any) {
	if _, ok := item.(map[any]any); !ok && f.Kind == frame.KindUnknown {
		return
	}
	b := m.fields(item)
	switch f.Kind {
	case frame.KindUnknown:
		if n, ok := b["seq"].(uint64); ok && n < 1<<53 {
			f.Seq = int64(n)
		}
		if s, ok := b["did"].(string); ok && len(s) <= 2048 && utf8.ValidString(s) {
			f.DID = s
		}
		return
	case frame.KindInfo, frame.KindError:
		f.Name = m.text(b, map[frame.Kind]string{frame.KindInfo: "name", frame.KindError: "error"}[f.Kind], 128, "")
		if v, ok := b["message"]; ok && v != nil {
			s, ok := v.(string)
			m.is(ok)
			f.Message = strings.ToValidUTF8(s[:min(len(s), 512)], "")
		}
		return
	}
	n, ok := b["seq"].(uint64)
	m.is(ok && n > 0 && n < 1<<53)
	f.Seq = int64(n)
	name := "did"
	if f.Kind == frame.KindCommit {
		name = "repo"
	}
	f.DID = m.text(b, name, 2048, "required")
	if s, ok := b["time"].(string); ok && len(s) <= 64 {
		if at, err := time.Parse(time.RFC3339Nano, s); err == nil {
			f.Time = max(0, at.UnixMicro())
		}
	}
	switch f.Kind {
	case frame.KindIdentity:
		f.Handle = m.text(b, "handle", 256, "nullable")
	case frame.KindAccount:
		f.Active, ok = b["active"].(bool)
		m.is(ok)
		f.Status = m.text(b, "status", 128, "nullable")
	default:
		f.Rev = m.text(b, "rev", 128, "required")
		if v, ok := b["blocks"]; ok && v != nil {
			f.Blocks, ok = v.([]byte)
			m.is(ok)
		}
	}
	if f.Kind == frame.KindCommit {
		m.commit(f, b)
	}
}

func (m *model) commit(f *frame.Frame, b map[any]any) {
	f.Since = m.text(b, "since", 128, "nullable")
	if v, ok := b["commit"]; ok {
		f.Commit, _ = m.link(v)
	}
	f.PrevData = m.block(b["prevData"])
	f.TooBig, f.Rebase = m.flag(b["tooBig"]), m.flag(b["rebase"])
	if b["ops"] == nil {
		return
	}
	ops, ok := b["ops"].([]any)
	m.is(ok && len(ops) <= 1000)
	for _, item := range ops {
		o := m.fields(item)
		path, ok := o["path"].(string)
		m.is(ok)
		f.Ops = append(f.Ops, frame.Op{
			Action: m.text(o, "action", 128, "required"), Path: []byte(path),
			CID: m.block(o["cid"]), Prev: m.block(o["prev"]),
		})
	}
}

// text returns a text field. It may be missing unless required, and null if nullable.
func (m *model) text(b map[any]any, name string, limit int, how string) string {
	v, ok := b[name]
	if !ok {
		m.is(how != "required")
		return ""
	}
	if v == nil && how == "nullable" {
		return ""
	}
	s, ok := v.(string)
	m.is(ok && len(s) <= limit && utf8.ValidString(s))
	return s
}

func (m *model) flag(v any) bool {
	b, ok := v.(bool)
	m.is(ok || v == nil)
	return b
}

// link returns the CID of a link, zero if it is not of the form of a block of a repository.
func (m *model) link(v any) (id repo.CID, ours bool) {
	tag, _ := v.(cbor.Tag)
	b, ok := tag.Content.([]byte)
	if !m.is(ok && tag.Number == 42 && len(b) >= 2 && len(b) <= 101 && b[0] == 0) {
		return repo.CID{}, false
	}
	id, err := repo.ParseCIDBytes(b[1:])
	return id, err == nil
}

// block is link, or zero for null.
func (m *model) block(v any) repo.CID {
	if v == nil {
		return repo.CID{}
	}
	id, ours := m.link(v)
	m.is(ours && id.Defined())
	return id
}
