package webhook_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"cistern/api/webhook"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// TestPoster: a request is signed, only 2xx is success, redirects are not followed, private
// addresses are refused unless they are allowed, and no error repeats the URL.
func TestPoster(t *testing.T) {
	t.Parallel()
	key := []byte("0123456789abcdef01234567")
	verifier, err := standardwebhooks.NewWebhookRaw(key)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		body, err := io.ReadAll(r.Body)
		if err != nil || verifier.Verify(body, r.Header) != nil || string(body) != "{}" || r.Header.Get("Webhook-Id") != "msg_1" || r.UserAgent() != "test" {
			t.Errorf("%s %v (%v)", body, r.Header, err)
		}
		switch r.URL.Path {
		case "/secret-bad":
			w.WriteHeader(http.StatusInternalServerError)
		case "/secret-moved":
			http.Redirect(w, r, "/", http.StatusFound)
		}
	}))
	defer endpoint.Close()
	p := webhook.NewPoster(nil, true, "test")
	defer p.Close()
	for path, want := range map[string]string{"/secret": "", "/secret-bad": "HTTP 500", "/secret-moved": "HTTP 302"} {
		err := p.Post(t.Context(), endpoint.URL+path, [][]byte{key}, "msg_1", []byte("{}"))
		if err == nil != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	careful := webhook.NewPoster(nil, false, "test")
	defer careful.Close()
	if err := careful.Post(t.Context(), endpoint.URL+"/secret", [][]byte{key}, "msg_1", []byte("{}")); err == nil || strings.Contains(err.Error(), "secret") || asked != 3 {
		t.Errorf("a private address was asked: %v, %d requests", err, asked)
	}
}
