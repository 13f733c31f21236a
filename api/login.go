package api

import (
	"errors"
	"mime"
	"net/http"
	"strings"

	"cistern/api/clients"
	"cistern/api/dashboard"
	"cistern/api/wire"
)

// pages serves the dashboard, and takes the admin token of its readers.
type pages struct {
	access *access
	files  *dashboard.Files
}

// dashboard handles GET / of the private listener.
func (p *pages) dashboard(w http.ResponseWriter, r *http.Request) error {
	return p.file(w, r, "index.html")
}

// part handles GET /dashboard/{file}.
func (p *pages) part(w http.ResponseWriter, r *http.Request) error {
	return p.file(w, r, r.PathValue("file"))
}

func (p *pages) file(w http.ResponseWriter, r *http.Request, name string) error {
	if !p.files.Serve(w, r, name) {
		return wire.Refuse("NotFound", "there is nothing at %s", wire.Echo(r.URL.Path))
	}
	return nil
}

// ask handles GET /login.
func (p *pages) ask(w http.ResponseWriter, r *http.Request) error {
	if p.access.token == "" || p.access.sessions.Has(r) {
		seeOther(w, "./")
		return nil
	}
	p.files.ServeLogin(w, http.StatusOK, "")
	return nil
}

// login handles POST /login: a form with the admin token, for which the browser gets a session.
func (p *pages) login(w http.ResponseWriter, r *http.Request) error {
	if err := readForm(w, r); err != nil {
		return err
	}
	if p.access.token == "" {
		seeOther(w, "./")
		return nil
	}
	right, wait := p.access.brake.Try(clients.Of(r.RemoteAddr), func() bool {
		return p.access.isToken(r.PostForm.Get("token"))
	})
	if wait > 0 {
		p.access.requests.WithLabelValues("guard", "refused").Inc()
		seconds := p.access.braked(r, wait)
		w.Header().Set("Retry-After", seconds)
		p.files.ServeLogin(w, http.StatusTooManyRequests,
			"Too many wrong tokens were given from your address or from all together. Try "+
				"again in "+seconds+" s.")
		return nil
	}
	if !right {
		p.access.requests.WithLabelValues("guard", "refused").Inc()
		p.files.ServeLogin(w, http.StatusForbidden, "This is not the admin token of this daemon.")
		return nil
	}
	// Behind a proxy that speaks TLS, the request itself came without.
	p.access.sessions.Begin(w, r, strings.HasPrefix(r.Header.Get("Origin"), "https:"))
	seeOther(w, "./")
	return nil
}

// logout handles POST /logout, which ends the session. It leads to the login also if the session
// has ended before.
func (p *pages) logout(w http.ResponseWriter, r *http.Request) error {
	if err := readForm(w, r); err != nil {
		return err
	}
	p.access.sessions.End(w, r)
	seeOther(w, "login")
	return nil
}

// readForm reads the form of a page of this server. Every browser states the origin of a form.
func readForm(w http.ResponseWriter, r *http.Request) error {
	if !sameOrigin(r.Header.Values("Origin"), r.Host) {
		return wire.Refuse("Forbidden", "the form is not of a page of this server")
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/x-www-form-urlencoded" {
		return wire.Refuse("UnsupportedMediaType", "content type %s: want a form",
			wire.Echo(r.Header.Get("Content-Type")))
	}
	r.Body = http.MaxBytesReader(w, r.Body, formBytesMax)
	if err := r.ParseForm(); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return wire.Refuse("PayloadTooLarge", "a form has at most %d bytes", formBytesMax)
		}
		return wire.Invalid("the form cannot be read")
	}
	return nil
}

// seeOther sends the browser to a path that is relative to the present one, so that a proxy may
// serve the pages below a path of its own.
func seeOther(w http.ResponseWriter, to string) {
	w.Header().Set("Location", to)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusSeeOther)
}
