package dashboard_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"cistern/api/dashboard"
)

// inline is what the policy of the pages forbids: scripts, styles and handlers within HTML.
var inline = regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|<script(?:>| [^>]*>[^<])|javascript:`)

// elsewhere is an address of another site.
var elsewhere = regexp.MustCompile(`(?:src|href|url|import|from|fetch)[ =(]*["'` + "`" + `(](?:https?:)?//`)

// TestFiles: each file of the directory is served with its type and a policy, keeps to the policy,
// and needs nothing from elsewhere.
func TestFiles(t *testing.T) {
	t.Parallel()
	f, err := dashboard.NewFiles()
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir("files")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
		if !f.Serve(w, r, e.Name()) {
			t.Errorf("%s is not served", e.Name())
			continue
		}
		res, body := w.Result(), w.Body.String()
		policy := res.Header.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe") || res.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", e.Name(), res.Header)
		}
		if strings.HasSuffix(e.Name(), ".html") && inline.MatchString(body) {
			t.Errorf("%s has %q", e.Name(), inline.FindString(body))
		}
		if elsewhere.MatchString(body) {
			t.Errorf("%s needs %q", e.Name(), elsewhere.FindString(body))
		}
		tag := res.Header.Get("ETag")
		for have, status := range map[string]int{
			tag: 304, "W/" + tag: 304, `"other", ` + tag: 304, "*": 304, `"other"`: 200, `W/"other"`: 200, "": 200, "W/": 200} {
			again := httptest.NewRecorder()
			r.Header.Set("If-None-Match", have)
			if f.Serve(again, r, e.Name()); again.Code != status || (again.Body.Len() == 0) != (status == http.StatusNotModified) {
				t.Errorf("%s with If-None-Match %s: %d with %d bytes, want %d", e.Name(), have, again.Code, again.Body.Len(), status)
			}
		}
	}
	for _, name := range []string{"", "nothing", "../files.go", "files/index.html"} {
		w := httptest.NewRecorder()
		if f.Serve(w, httptest.NewRequest("GET", "/", nil), name) || w.Body.Len() > 0 {
			t.Errorf("%q is served", name)
		}
	}
}

func TestLoginPage(t *testing.T) {
	t.Parallel()
	f, err := dashboard.NewFiles()
	if err != nil {
		t.Fatal(err)
	}
	plain, failed := httptest.NewRecorder(), httptest.NewRecorder()
	f.ServeLogin(plain, http.StatusOK, "")
	f.ServeLogin(failed, http.StatusForbidden, "wrong")
	if text := plain.Body.String(); plain.Code != 200 || strings.Contains(text, "alert") || !strings.Contains(text, `<form method="post" action="login"`) {
		t.Errorf("%d %s", plain.Code, text)
	}
	if text := failed.Body.String(); failed.Code != 403 || !strings.Contains(text, `<p class="failed" role="alert">wrong</p>`) || failed.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v %s", failed.Code, failed.Header(), text)
	}
}
