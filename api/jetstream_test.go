package api_test

import (
	"net/http"
	"testing"
)

// The routes of Jetstream exist, and a stream without an upgrade is told so.
func TestJetstreamRoutes(t *testing.T) {
	t.Parallel()
	addr := serveBounded(t, 10, 2, 2)
	for path, status := range map[string]int{
		"/subscribe":               http.StatusUpgradeRequired,
		"/subscribe?compress=true": http.StatusBadRequest,
		"/xrpc/network.bsky.jetstream.subscribeEvents":          http.StatusUpgradeRequired,
		"/xrpc/network.bsky.jetstream.subscribeEvents?kinds=no": http.StatusBadRequest,
		"/xrpc/network.bsky.jetstream.getZstdDictionary":        http.StatusOK,
		"/xrpc/network.bsky.jetstream.getZstdDictionary?id=1":   http.StatusNotFound,
		"/xrpc/network.bsky.jetstream.planSnapshot":             http.StatusNotImplemented,
	} {
		res, err := http.Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != status {
			t.Errorf("%s: %d, want %d", path, res.StatusCode, status)
		}
	}
}
