package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"cistern/api/dashboard"
	"cistern/api/statuspage"
	"cistern/api/wire"
)

// statusPage answers the routes of the public status page. All visitors share one answer, which is
// made at most once in statusAge.
type statusPage struct {
	page  *statuspage.Page // nil: there is no status page
	read  func(now time.Time) statuspage.Status
	coder *coder
	now   func() time.Time

	mu    *sync.Mutex
	body  []byte           // mu guards
	forms map[string]coded // mu guards; the body by Accept-Encoding, at most statusForms
	born  time.Time        // mu guards; zero without a body
}

// newStatusPage returns the handler of the status page, which serves nothing unless on is set. It
// gets its figures by read.
func newStatusPage(
	on bool, read func(now time.Time) statuspage.Status, files *dashboard.Files, c *coder,
) (statusPage, error) {
	s := statusPage{read: read, coder: c, now: time.Now, mu: &sync.Mutex{}}
	if !on {
		return s, nil
	}
	page, err := statuspage.New(files)
	s.page = page
	return s, err
}

// show handles GET /status.
func (s *statusPage) show(w http.ResponseWriter, r *http.Request) error {
	s.page.Show(w, r)
	return nil
}

// part handles GET /status/{file}.
func (s *statusPage) part(w http.ResponseWriter, r *http.Request) error {
	if !s.page.Part(w, r, r.PathValue("file")) {
		return wire.Refuse("NotFound", "there is nothing at %s", wire.Echo(r.URL.Path))
	}
	return nil
}

// figures handles GET /status.json.
func (s *statusPage) figures(w http.ResponseWriter, r *http.Request) error {
	form, err := s.form(r)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(statusAge.Seconds())))
	form.head(w.Header())
	wire.WriteBody(w, http.StatusOK, form.bytes)
	return nil
}

// form returns the answer as the client of a request accepts it. A client with a header that is
// beyond statusForms gets it as it is.
func (s *statusPage) form(r *http.Request) (coded, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.now(); s.born.IsZero() || now.Sub(s.born) >= statusAge || now.Before(s.born) {
		body, err := json.Marshal(s.read(now))
		if err != nil {
			return coded{}, fmt.Errorf("encode the public status: %w", err)
		}
		s.body, s.forms, s.born = body, map[string]coded{}, now
	}
	accepts := r.Header.Get("Accept-Encoding")
	form, ok := s.forms[accepts]
	if ok {
		return form, nil
	}
	if len(s.forms) >= statusForms || len(accepts) > statusFormName {
		return coded{http.Header{"Vary": {"Accept-Encoding"}}, s.body}, nil
	}
	form = s.coder.code(r, wire.TypeJSON, s.body)
	s.forms[accepts] = form
	return form, nil
}
