package deliver_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"cistern/api/deliver"
	"cistern/api/deliver/delivertest"
	"cistern/api/wire"

	"github.com/gorilla/websocket"
	"github.com/klauspost/compress/zstd"
)

func getDictionary(t testing.TB, srv *httptest.Server, query string, h http.Header) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+deliver.GetDictionary+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = h
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, body
}

// The dictionary of version 2 is served with its id, which stands for the same bytes for ever.
func TestGetZstdDictionary(t *testing.T) {
	t.Parallel()
	srv := serveLog(t, delivertest.NewLog(), deliver.Options{})
	res, current := getDictionary(t, srv, "", nil)
	d, err := zstd.InspectDictionary(current)
	if err != nil || res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/octet-stream" {
		t.Fatalf("%d %v: %v", res.StatusCode, res.Header, err)
	}
	id := fmt.Sprint(d.ID())
	res, same := getDictionary(t, srv, "?id="+id, nil)
	if res.StatusCode != 200 || string(same) != string(current) || res.Header.Get("ETag") != `"zstd-dict-`+id+`"` || !strings.Contains(res.Header.Get("Cache-Control"), "immutable") {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
	if res, _ := getDictionary(t, srv, "", http.Header{"If-None-Match": {res.Header.Get("ETag")}}); res.StatusCode != http.StatusNotModified {
		t.Errorf("the same dictionary is sent again: %d", res.StatusCode)
	}
	for query, want := range map[string]struct {
		status int
		name   string
	}{
		"?id=1": {404, "DictionaryNotFound"}, "?id=0": {400, "InvalidRequest"}, "?id=x": {400, "InvalidRequest"}, "?id=": {400, "InvalidRequest"},
		"?id=4294967296": {400, "InvalidRequest"}, "?id=1&id=2": {400, "InvalidRequest"}, "?%zz": {400, "InvalidRequest"},
	} {
		var e wire.ErrorBody
		res, body := getDictionary(t, srv, query, nil)
		if err := json.Unmarshal(body, &e); err != nil || res.StatusCode != want.status || e.Error != want.name || e.Message == "" {
			t.Errorf("%s: %d %s %v", query, res.StatusCode, body, err)
		}
	}
}

// With zstdDictionary, each message of version 2 is a zstd frame: events, the information at the
// beginning, and the error at the end. Its size is that before compression.
func TestJetstreamZstdDictionary(t *testing.T) {
	t.Parallel()
	log := delivertest.NewLog(delivertest.Posts(200)...)
	log.Add(delivertest.Identity(1)) // the last one is short
	log.Tail = 2
	srv := serveLog(t, log, deliver.Options{})
	_, dict := getDictionary(t, srv, "", nil)
	z, err := zstd.NewReader(nil, zstd.WithDecoderDicts(dict))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(z.Close)
	const query = "?cursor=1000000000000000&maxMessageSizeBytes=%d%s"
	compare := func(most int) (wire, text int) {
		t.Helper()
		plain := dial(t, srv, subscribe2+fmt.Sprintf(query, most, ""), nil)
		packed := dial(t, srv, subscribe2+fmt.Sprintf(query, most, "&zstdDictionary=20261201"), nil)
		for {
			_, want, err := plain.ReadMessage()
			if err != nil {
				t.Fatal(err)
			}
			kind, frame, err := packed.ReadMessage()
			if err != nil || kind != websocket.BinaryMessage {
				t.Fatalf("message of kind %d: %v", kind, err)
			}
			got, err := z.DecodeAll(frame, nil)
			if err != nil || string(got) != string(want) {
				t.Fatalf("%s: %v, want %s", got, err, want)
			}
			wire, text = wire+len(frame), text+len(want)
			if strings.Contains(string(got), `"seq":201,`) {
				break
			}
		}
		return wire, text
	}
	packed, plain := compare(0)
	if 3*packed > 2*plain {
		t.Errorf("%d of %d bytes: the dictionary is not used", packed, plain)
	}
	if _, less := compare(500); less >= plain {
		t.Error("no message is longer than the limit")
	}
	log.Fail = io.ErrUnexpectedEOF
	log.Add(delivertest.Identity(1))
	ws := dial(t, srv, subscribe2+"?cursor=202&zstdDictionary=20261201", nil)
	_, frame, err := ws.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	if text, err := z.DecodeAll(frame, nil); err != nil || !strings.Contains(string(text), `{"$type":"error","error":"InternalError"`) {
		t.Errorf("%s: %v", text, err)
	}
	delivertest.Ends(t, ws, websocket.CloseInternalServerErr)
}
