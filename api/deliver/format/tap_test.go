package format_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"cistern/api/deliver/format"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/fxamacker/cbor/v2"
	"github.com/ipfs/go-cid"
)

const tapDID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"

// tapEvent returns an event of a record.
func tapEvent(action store.Action, record []byte) *store.Event {
	ev := &store.Event{ID: 12345, Kind: store.KindRecord, DID: tapDID, Live: true, Rev: "3kaaaaaaaaa2a",
		Action: action, Collection: []byte("app.test.a"), Rkey: []byte("3kaaaaaaaaa2b"), Record: record}
	if action != store.Delete {
		ev.CID = repo.HashCID(record)
	}
	return ev
}

func encodeCBOR(t testing.TB, v any) []byte {
	t.Helper()
	mode, err := cbor.EncOptions{Sort: cbor.SortLengthFirst, NilContainers: cbor.NilContainerAsEmpty}.EncMode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := mode.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// link returns a CID as DAG-CBOR has it.
func link(c cid.Cid) cbor.Tag { return cbor.Tag{Number: 42, Content: append([]byte{0}, c.Bytes()...)} }

func parseCID(t testing.TB, text string) cid.Cid {
	t.Helper()
	c, err := cid.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const (
	rawCID  = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
	cborCID = "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"
	oldCID  = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbdG"
)

// Each kind of event is exactly what tap sends.
func TestTapGolden(t *testing.T) {
	t.Parallel()
	record := encodeCBOR(t, map[string]any{"$type": "app.test.a", "text": "x\n\"", "n": -1,
		"image": map[string]any{"$type": "blob", "ref": link(parseCID(t, rawCID)), "mimeType": "image/png", "size": 3},
		"raw":   []byte{1, 2}, "list": []any{nil, true, link(parseCID(t, cborCID))}})
	const head = `{"id":12345,"type":"record","record":{"live":true,"did":"` + tapDID +
		`","rev":"3kaaaaaaaaa2a","collection":"app.test.a","rkey":"3kaaaaaaaaa2b","action":`
	body := `,"record":{"n":-1,"raw":{"$bytes":"AQI"},"list":[null,true,{"$link":"` + cborCID + `"}],"text":"x\n\"",` +
		`"$type":"app.test.a","image":{"ref":{"$link":"` + rawCID + `"},"size":3,"$type":"blob","mimeType":"image/png"}},"cid":"` +
		repo.HashCID(record).String() + `"}}`
	history := tapEvent(store.Create, record)
	history.Live = false
	subject := func(kind store.Kind, s store.Status, handle string) *store.Event {
		return &store.Event{ID: 12346, Kind: kind, DID: tapDID, Status: s, Handle: handle, PDS: "https://pds.test"}
	}
	identity := func(handle string, active bool, status string) string {
		return fmt.Sprintf(`{"id":12346,"type":"identity","identity":{"did":"%s","handle":"%s","is_active":%t,"status":"%s"}}`,
			tapDID, handle, active, status)
	}
	for _, c := range []struct {
		ev   *store.Event
		want string
	}{
		{tapEvent(store.Create, record), head + `"create"` + body},
		{tapEvent(store.Update, record), head + `"update"` + body},
		{tapEvent(store.Delete, nil), head + `"delete"}}`},
		{history, strings.Replace(head, "true", "false", 1) + `"create"` + body},
		{subject(store.KindIdentity, store.StatusActive, "alice.test"), identity("alice.test", true, "active")},
		{subject(store.KindIdentity, store.StatusSuspended, ""), identity("handle.invalid", false, "suspended")},
		{subject(store.KindIdentity, store.StatusActive, "not a handle"), identity("handle.invalid", true, "active")},
		{subject(store.KindAccount, store.StatusActive, "alice.test"), identity("alice.test", true, "active")},
		{subject(store.KindAccount, store.StatusTakendown, ""), identity("handle.invalid", false, "takendown")},
		{subject(store.KindAccount, store.StatusDeactivated, "a.test"), identity("a.test", false, "deactivated")},
		{subject(store.KindAccount, store.StatusDeleted, "a.test"), identity("a.test", false, "deleted")},
		// The protocol has no word for these.
		{subject(store.KindAccount, store.StatusNotFound, "a.test"), identity("a.test", false, "deactivated")},
		{subject(store.KindAccount, store.StatusInactive, "a.test"), identity("a.test", false, "deactivated")},
	} {
		got, result := format.Tap.NewEncoder().Encode([]byte("before"), c.ev)
		if string(got) != "before"+c.want || result != format.Encoded {
			t.Errorf("%+v:\n%s %d, want\n%s", c.ev, got, result, c.want)
		}
		if err := refusesTap([]byte(c.want)); err != nil {
			t.Errorf("the client refuses %s: %v", c.want, err)
		}
	}
	for _, ev := range []*store.Event{
		{ID: 1, Kind: 99, DID: tapDID}, {ID: 1, Kind: store.KindIdentity, DID: "did:plc:Short"},
		tapEvent(store.Create, encodeCBOR(t, map[string]any{"float": 1.5})),
	} {
		if got, result := format.Tap.NewEncoder().Encode([]byte("before"), ev); string(got) != "before" || result < format.LeftOut {
			t.Errorf("%+v: %s, %d", ev, got, result)
		}
	}
}

// Records with the forms that the client checks are sent exactly if it takes them.
func TestTapRecords(t *testing.T) {
	t.Parallel()
	raw, data, old := link(parseCID(t, rawCID)), link(parseCID(t, cborCID)), link(parseCID(t, oldCID))
	all := newFrames(t)
	type m = map[string]any
	blob := func(change m) m {
		b := m{"$type": "blob", "ref": raw, "mimeType": "image/png", "size": 0}
		maps.Copy(b, change)
		maps.DeleteFunc(b, func(_ string, v any) bool { return v == "absent" })
		return b
	}
	for name, c := range map[string]struct {
		record m
		sent   bool
	}{
		"empty":                 {m{}, true},
		"without a type":        {m{"text": "x"}, true},
		"largest integers":      {m{"a": int64(safe), "b": -int64(safe)}, true},
		"larger integer":        {m{"a": int64(safe + 1)}, false},
		"smaller integer":       {m{"a": m{"b": []any{-int64(safe + 1)}}}, false},
		"prototype":             {m{"a": m{"__proto__": m{}}}, false},
		"links":                 {m{"a": raw, "b": []any{data, old}}, true},
		"record as link":        {m{"$link": cborCID}, false},
		"map as link":           {m{"a": m{"$link": cborCID}}, true},
		"map as other link":     {m{"a": m{"$link": "bafy"}}, false},
		"link and more":         {m{"a": m{"$link": cborCID, "b": 1}}, false},
		"link of null":          {m{"a": m{"$link": nil}}, false},
		"link of a link":        {m{"a": m{"$link": data}}, false},
		"record as bytes":       {m{"$bytes": "AQI"}, false},
		"bytes":                 {m{"a": []byte{}, "b": []byte("bytes")}, true},
		"map as bytes":          {m{"a": m{"$bytes": "AQI="}, "b": m{"$bytes": "AQI"}, "c": m{"$bytes": ""}}, true},
		"bytes of no base64":    {m{"a": m{"$bytes": "A"}}, false},
		"bytes of other chars":  {m{"a": m{"$bytes": "A-_x"}}, false},
		"bytes of a number":     {m{"a": m{"$bytes": 1}}, false},
		"bytes and a type":      {m{"a": m{"$bytes": "AQI", "$type": "x"}}, false},
		"type of a number":      {m{"$type": 1}, false},
		"type of null":          {m{"a": m{"$type": nil}}, false},
		"empty type":            {m{"$type": ""}, false},
		"type of a list":        {m{"$type": []any{"x"}}, false},
		"blob":                  {m{"a": blob(nil)}, true},
		"record as blob":        {blob(nil), true},
		"blob of nothing":       {m{"a": m{"$type": "blob"}}, false},
		"blob of cbor":          {m{"a": blob(m{"ref": data})}, false},
		"blob of old CID":       {m{"a": blob(m{"ref": old})}, false},
		"blob of no CID":        {m{"a": blob(m{"ref": rawCID})}, false},
		"blob without a type":   {m{"a": blob(m{"$type": "absent"})}, true},
		"blob of no size":       {m{"a": blob(m{"size": "absent"})}, false},
		"blob of size -1":       {m{"a": blob(m{"size": -1})}, false},
		"blob of size text":     {m{"a": blob(m{"size": "1"})}, false},
		"blob of no MIME type":  {m{"a": blob(m{"mimeType": "png"})}, false},
		"blob and more":         {m{"a": blob(m{"b": 1})}, false},
		"blob with another key": {m{"a": blob(m{"size": "absent", "b": 1})}, false},
	} {
		record := encodeCBOR(t, c.record)
		out, result := format.Tap.NewEncoder().Encode(nil, tapEvent(store.Create, record))
		if sent := result == format.Encoded; sent != c.sent || sent != (len(out) > 0) {
			t.Errorf("%s: sent %t, want %t: %s", name, sent, c.sent, out)
		}
		if err := refusesTap(all.of(record)); (err == nil) != c.sent {
			t.Errorf("%s: the client says %v, want it sent: %t", name, err, c.sent)
		}
	}
}

// frames makes frames without the checks of the format of tap.
type frames struct{ format.Encoder }

func newFrames(t testing.TB) frames {
	t.Helper()
	set, err := format.NewSet("epoch", nil)
	if err != nil {
		t.Fatal(err)
	}
	return frames{set.Cistern(format.Variant{}).NewEncoder()}
}

// of returns the frame of a record.
func (f frames) of(record []byte) []byte {
	out, _ := f.Encode(nil, tapEvent(store.Create, record))
	return out
}

// Of records made at random, mostly of what the client refuses, each is sent exactly if the client
// takes it.
func TestTapHostile(t *testing.T) {
	t.Parallel()
	links := []any{link(parseCID(t, rawCID)), link(parseCID(t, cborCID)), link(parseCID(t, oldCID))}
	for seed := range storetest.Seeds(20) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			testHostile(t, hostile{rand.New(rand.NewPCG(seed, 1)), links})
		})
	}
}

func testHostile(t *testing.T, h hostile) {
	t.Helper()
	e, all := format.Tap.NewEncoder(), newFrames(t)
	const n = 1000
	sent := 0
	for range n {
		record := encodeCBOR(t, h.object(4))
		out, result := e.Encode(nil, tapEvent(store.Create, record))
		refused := refusesTap(all.of(record))
		if (result == format.Encoded) != (refused == nil) {
			t.Fatalf("result %d for %s, the client says %v", result, all.of(record), refused)
		}
		if result == format.Encoded {
			sent++
			if err := refusesTap(out); err != nil {
				t.Fatalf("the client refuses %s: %v", out, err)
			}
		}
	}
	if sent < n/4 || sent > n*3/4 {
		t.Errorf("%d of %d records are sent: too few of one kind to show anything", sent, n)
	}
}

// hostile makes records.
type hostile struct {
	*rand.Rand
	links []any
}

func (h hostile) object(depth int) map[string]any {
	keys := []string{"$link", "$bytes", "$type", "__proto__", "ref", "size", "mimeType", "a", "b", "c", "text"}
	m := map[string]any{}
	switch h.IntN(8) {
	case 0:
		m["$type"], m["ref"], m["mimeType"], m["size"] = "blob", h.links[h.IntN(2)], "a/b", h.IntN(3)-1
	case 1:
		m["$link"] = []string{rawCID, cborCID, oldCID, "bafy", ""}[h.IntN(5)]
	case 2:
		m["$bytes"] = []string{"AQI", "AQI=", "A", "!", ""}[h.IntN(5)]
	}
	for range h.IntN(3) {
		key := keys[len(keys)-1-int(math.Abs(h.NormFloat64())*3)%len(keys)]
		if m["$type"] == "blob" && key == "ref" { // the client also takes a map there, which no repository has
			m[key] = h.links[h.IntN(len(h.links))]
			continue
		}
		m[key] = h.value(depth - 1)
	}
	return m
}

func (h hostile) value(depth int) any {
	if depth > 0 && h.IntN(2) == 0 {
		if h.IntN(3) == 0 {
			return []any{h.value(depth - 1), h.value(depth - 1)}
		}
		return h.object(depth)
	}
	return []any{nil, true, "x", "blob", "", 1, -1, int64(safe), int64(safe + 1), -int64(safe), -int64(safe + 1), int64(math.MinInt64),
		[]byte{1}, h.links[h.IntN(len(h.links))]}[h.IntN(14)]
}

const safe = 1<<53 - 1

// refusesTap returns why @atproto/tap refuses a frame, nil if it takes it: lexParse in its strict
// mode, and then the schema of events.
func refusesTap(frame []byte) error {
	d := json.NewDecoder(bytes.NewReader(frame))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return err
	}
	v, err := lexValue(v)
	if err != nil {
		return err
	}
	ev, _ := v.(map[string]any)
	if _, ok := ev["id"].(json.Number); !ok {
		return errors.New("no id")
	}
	switch ev["type"] {
	case "record":
		return refusesRecord(ev["record"])
	case "identity":
		return refusesIdentity(ev["identity"])
	}
	return fmt.Errorf("type %v", ev["type"])
}

// matches are the string formats of the client, as its regular expressions have them.
var matches = map[string]*regexp.Regexp{
	"did":        regexp.MustCompile(`^did:[a-z]+:[a-zA-Z0-9._:%-]*[a-zA-Z0-9._-]$`),
	"handle":     regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)+[a-zA-Z]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$`),
	"collection": regexp.MustCompile(`^[a-zA-Z](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)+(?:\.[a-zA-Z](?:[a-zA-Z0-9]{0,62})?)$`),
	"rkey":       regexp.MustCompile(`^[a-zA-Z0-9_~.:-]{1,512}$`),
}

func refusesField(m map[string]any, name string) error {
	s, ok := m[name].(string)
	if pattern := matches[name]; !ok || pattern != nil && !pattern.MatchString(s) {
		return fmt.Errorf("%s %v", name, m[name])
	}
	return nil
}

func refusesRecord(v any) error {
	m, _ := v.(map[string]any)
	for _, name := range []string{"did", "rev", "collection", "rkey"} {
		if err := refusesField(m, name); err != nil {
			return err
		}
	}
	if _, ok := m["live"].(bool); !ok {
		return errors.New("no live")
	}
	if action, _ := m["action"].(string); !slices.Contains([]string{"create", "update", "delete"}, action) {
		return fmt.Errorf("action %v", m["action"])
	}
	if record, ok := m["record"]; ok {
		if _, ok := record.(map[string]any); !ok {
			return errors.New("the record is not a map")
		}
	} else if m["action"] != "delete" { // the schema takes it, but then the record is missing
		return errors.New("no record")
	}
	if text, ok := m["cid"]; ok {
		c, err := cid.Decode(fmt.Sprint(text))
		if err != nil || c.String() != text {
			return fmt.Errorf("cid %v", text)
		}
	}
	return nil
}

func refusesIdentity(v any) error {
	m, _ := v.(map[string]any)
	for _, name := range []string{"did", "handle"} {
		if err := refusesField(m, name); err != nil {
			return err
		}
	}
	if _, ok := m["is_active"].(bool); !ok {
		return errors.New("no is_active")
	}
	if s, _ := m["status"].(string); !slices.Contains([]string{"active", "takendown", "suspended", "deactivated", "deleted"}, s) {
		return fmt.Errorf("status %v", m["status"])
	}
	return nil
}

// lexLink and lexBytes are what JSON becomes.
type (
	lexLink  struct{ cid.Cid }
	lexBytes []byte
)

// lexValue is jsonToLex with strict: true.
func lexValue(v any) (any, error) {
	switch v := v.(type) {
	case json.Number:
		n, err := v.Int64()
		if err != nil || n > safe || n < -safe {
			return nil, fmt.Errorf("number %s", v)
		}
	case []any:
		for i := range v {
			item, err := lexValue(v[i])
			if err != nil {
				return nil, err
			}
			v[i] = item
		}
	case map[string]any:
		if special, err := lexSpecial(v); special != nil || err != nil {
			return special, err
		}
		for key := range v {
			if key == "__proto__" {
				return nil, errors.New("__proto__")
			}
			item, err := lexValue(v[key])
			if err != nil {
				return nil, err
			}
			v[key] = item
		}
	}
	return v, nil
}

// lexSpecial is parseSpecialJsonObject with strict: true.
func lexSpecial(m map[string]any) (any, error) {
	if v, ok := m["$link"]; ok {
		text, _ := v.(string)
		c, err := cid.Decode(text)
		if err != nil || len(m) > 1 || len(text) > 128 {
			return nil, fmt.Errorf("invalid $link %v", v)
		}
		return lexLink{c}, nil
	}
	if v, ok := m["$bytes"]; ok {
		text, isText := v.(string)
		b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
		if err != nil || !isText || len(m) > 1 {
			return nil, fmt.Errorf("invalid $bytes %v", v)
		}
		return lexBytes(b), nil
	}
	v, ok := m["$type"]
	if !ok {
		return nil, nil
	}
	if v != "blob" {
		if s, _ := v.(string); s == "" {
			return nil, fmt.Errorf("$type %v", v)
		}
		return nil, nil
	}
	ref, _ := m["ref"].(map[string]any)
	inner, err := lexSpecial(ref)
	c, isLink := inner.(lexLink)
	mime, _ := m["mimeType"].(string)
	size, _ := m["size"].(json.Number)
	n, serr := size.Int64()
	if err != nil || !isLink || c.Version() != 1 || c.Type() != cid.Raw || len(m) != 4 || !strings.Contains(mime, "/") || serr != nil || n < 0 || n > safe {
		return nil, fmt.Errorf("invalid blob %v", m)
	}
	return m, nil
}
