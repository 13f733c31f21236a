package client_test

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"cistern/client"
)

// TestNamesInPaths: a name that would make a request about something else is refused before it is sent.
func TestNamesInPaths(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(s.Close)
	c := client.New(s.URL, "", "it")
	for path, want := range map[string]string{
		"/hosts/..":                 `"..": want a name`,
		"/hosts/./limits":           `".": want a name`,
		"/hosts//ban":               `"": want a name`,
		"/subscriptions/":           `"": want a name`,
		"/hosts/..%2F..":            "",
		"/hosts/a..b":               "",
		"/maintenance/backup":       "",
		"/hosts/pds.example.com:80": "",
	} {
		before := asked.Load()
		_, err := c.Do(t.Context(), "DELETE", path, nil, nil, nil)
		if (err == nil) != (want == "") || err != nil && err.Error() != want || asked.Load()-before > 0 != (want == "") {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}
