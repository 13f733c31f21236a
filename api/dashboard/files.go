package dashboard

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

//go:embed files
var embedded embed.FS

// Prefix is the path below which the parts of pages are. They are the same for every daemon, and
// need no session.
const Prefix = "/dashboard/"

// policy is the Content-Security-Policy of all files.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
	"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// types are the content types of files.
var types = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
	".txt":  "text/plain; charset=utf-8",
}

// file is a file with its ETag.
type file struct {
	body []byte
	etag string
}

// Files serves the files of the pages.
type Files struct {
	files map[string]file // by name
}

// NewFiles reads the files, which are part of the binary.
func NewFiles() (*Files, error) { return ReadFiles(embedded) }

// ReadFiles reads the directory files of a file system.
func ReadFiles(embedded fs.ReadFileFS) (*Files, error) {
	f := &Files{files: map[string]file{}}
	err := fs.WalkDir(embedded, "files", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		body, err := embedded.ReadFile(name)
		if err != nil {
			return err
		}
		if types[path.Ext(name)] == "" {
			return fmt.Errorf("file %s has no content type", name)
		}
		hash := sha256.Sum256(body)
		f.files[strings.TrimPrefix(name, "files/")] = file{body,
			`"` + base64.RawURLEncoding.EncodeToString(hash[:12]) + `"`}
		return nil
	})
	return f, err
}

// Head sets the headers of an answer with a page or a part of it, by the name of its file.
func Head(h http.Header, name string) {
	h.Set("Content-Type", types[path.Ext(name)])
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	// With no-referrer, browsers would send forms with the Origin null.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache") // it is asked whether the ETag is still the same
}

// Serve answers with a file. found is false, and nothing is written, if there is no such file.
func (f *Files) Serve(w http.ResponseWriter, r *http.Request, name string) (found bool) {
	is, found := f.files[name]
	if !found {
		return false
	}
	Head(w.Header(), name)
	w.Header().Set("ETag", is.etag)
	if has(r.Header, is.etag) {
		w.WriteHeader(http.StatusNotModified)
		return true
	}
	_, _ = w.Write(is.body) // an error concerns the client only
	return true
}

// has reports whether a client has the version of a file already. A proxy that compresses makes a
// tag weak and so adds W/ (RFC 9110, section 13.1.2).
func has(h http.Header, etag string) bool {
	for _, line := range h.Values("If-None-Match") {
		for tag := range strings.SplitSeq(line, ",") {
			if tag = strings.TrimSpace(tag); tag == "*" || strings.TrimPrefix(tag, "W/") == etag {
				return true
			}
		}
	}
	return false
}

// failedMark stands in login.html where the message of a failure goes.
const failedMark = "<!-- failed -->"

// ServeLogin answers with the page that asks for the token, after a failure with the message that
// says why.
func (f *Files) ServeLogin(w http.ResponseWriter, status int, failed string) {
	const name = "login.html"
	if failed != "" {
		failed = `<p class="failed" role="alert">` + failed + `</p>`
	}
	Head(w.Header(), name)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	page := strings.Replace(string(f.files[name].body), failedMark, failed, 1)
	_, _ = w.Write([]byte(page)) // an error concerns the client only
}
