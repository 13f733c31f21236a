package identity_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cistern/ingest/identity"
)

// TestAnswersAreReported has what directories answer instead of a document: the error says what came from where. What
// says nothing about the DID is no reason to give it up, but for a did:web, of which no other host knows.
func TestAnswersAreReported(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	t.Cleanup(other.Close)
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended) }) // before the servers close
	hang := func(r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-ended:
		}
	}
	page := func(contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			_, _ = io.WriteString(w, body)
		}
	}
	for _, row := range []struct {
		why     string
		answer  http.HandlerFunc
		plc     string // a part of the error for a did:plc
		invalid bool   // it is ErrInvalid, as it always is for did:web
		passing bool   // it is not ErrInvalid for did:web either
	}{
		{why: "a page", answer: page("text/html; charset=utf-8", "<html>Just a moment"), plc: `with content type "text/html; charset=utf-8" is not JSON`},
		{why: "a document that is cut", answer: page("application/json", `{"id":"did:plc:`), plc: `with content type "application/json" is not JSON`},
		{why: "nothing", answer: page("text/plain", ""), plc: `HTTP 200 from HOST with content type "text/plain" is not JSON`},
		{why: "JSON of another kind", answer: page("application/json", `{"error":"Unavailable"}`), plc: "JSON without an id", invalid: true},
		{why: "no answer", answer: func(_ http.ResponseWriter, r *http.Request) { hang(r) }, plc: "no answer from HOST within 3s", passing: true},
		{why: "half an answer", answer: func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "{")
			_ = http.NewResponseController(w).Flush()
			hang(r)
		}, plc: "no complete answer from HOST within 3s", passing: true},
		{why: "another host", answer: http.RedirectHandler(other.URL+"/x", http.StatusFound).ServeHTTP,
			plc: "HTTP 418 from " + strings.TrimPrefix(other.URL, "http://") + ", to which HOST redirects", passing: true},
		{why: "itself", answer: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", http.StatusFound) },
			plc: "more than 3 redirects, the last to http://HOST/again", passing: true},
		{why: "another scheme", answer: http.RedirectHandler("ftp://ftp.example/x", http.StatusFound).ServeHTTP,
			plc: "redirect from http to ftp://ftp.example/x", passing: true},
	} {
		t.Run(row.why, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(row.answer)
			t.Cleanup(server.Close)
			host := strings.TrimPrefix(server.URL, "http://")
			d := newDirectory(t, identity.Options{PLC: []string{server.URL}, Timeout: 3 * time.Second})
			for did, invalid := range map[string]bool{
				"did:plc:cccccccccccccccccccccccc":                                                    row.invalid,
				fmt.Sprint("did:web:localhost%3A", server.URL[strings.LastIndex(server.URL, ":")+1:]): !row.passing,
			} {
				_, err := d.Resolve(t.Context(), did)
				if err == nil || errors.Is(err, identity.ErrNotFound) || errors.Is(err, identity.ErrInvalid) != invalid {
					t.Errorf("%s: invalid is not %v: %v", did, invalid, err)
				}
				asked := host
				if strings.HasPrefix(did, "did:web:") {
					asked = strings.Replace(host, "127.0.0.1", "localhost", 1)
				}
				if want := strings.ReplaceAll(row.plc, "HOST", asked); err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v, want %s", did, err, want)
				}
			}
		})
	}
}
