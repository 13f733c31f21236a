package api_test

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"cistern/api"
)

// reply is an answer without the redirect that it may ask for.
type reply struct {
	code     int
	location string
	cookie   *http.Cookie
	text     string
	header   http.Header
}

// send sends a request as a browser does, without following redirects.
func send(t *testing.T, method, url, body string, header map[string]string, cookie *http.Cookie) reply {
	t.Helper()
	if header == nil {
		header = map[string]string{}
	}
	if cookie != nil {
		header["Cookie"] = cookie.Name + "=" + cookie.Value
	}
	client := *http.DefaultClient
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	var text string
	res := callWith(t, &client, method, url, body, header, &text)
	r := reply{code: res.StatusCode, location: res.Header.Get("Location"), text: text, header: res.Header}
	if all := res.Cookies(); len(all) > 0 {
		r.cookie = all[0]
	}
	return r
}

// form are the headers of a form of a page of the server at base.
func form(base string) map[string]string {
	return map[string]string{"Content-Type": "application/x-www-form-urlencoded", "Origin": base, "Sec-Fetch-Site": "same-origin"}
}

// TestLogin: a browser gives the token once, in a form, and then has a session until it ends it.
func TestLogin(t *testing.T) {
	t.Parallel()
	const token = "s3cret & more"
	w := newWorld(t, api.Options{AdminToken: token})
	at := w.admin.URL
	if r := send(t, "GET", at+"/", "", nil, nil); r.code != 303 || r.location != "login" {
		t.Errorf("without a session the dashboard answers %d, %q", r.code, r.location)
	}
	for _, path := range []string{"/login", "/dashboard/style.css", "/dashboard/app.js"} {
		if r := send(t, "GET", at+path, "", nil, nil); r.code != 200 || r.header.Get("Content-Security-Policy") == "" {
			t.Errorf("%s: %d %v", path, r.code, r.header)
		}
	}
	for _, path := range []string{"/overview", "/stats", "/dashboardx", "/repos"} {
		if r := send(t, "GET", at+path, "", nil, nil); r.code != 401 {
			t.Errorf("without a session %s answers %d", path, r.code)
		}
	}
	body := url.Values{"user": {"admin"}, "token": {token}}.Encode()
	foreign, null, bare, json := form("http://evil.example"), form("null"), form(at), form(at)
	delete(bare, "Origin")
	json["Content-Type"] = "application/json"
	for name, c := range map[string]struct {
		path, body string
		header     map[string]string
		want       int
	}{
		"wrong token":  {"/login", "token=wrong", form(at), 403},
		"no token":     {"/login", "", form(at), 403},
		"token in URL": {"/login?" + body, "", form(at), 403},
		"another site": {"/login", body, foreign, 403},
		"sandbox":      {"/login", body, null, 403},
		"no origin":    {"/login", body, bare, 403},
		"no form":      {"/login", body, json, 415},
		"large":        {"/login", body + strings.Repeat("x", 5000), form(at), 413},
		"broken":       {"/login", "token=%zz", form(at), 400},
	} {
		if r := send(t, "POST", at+c.path, c.body, c.header, nil); r.code != c.want || r.cookie != nil {
			t.Errorf("%s: %d, cookie %v, %s", name, r.code, r.cookie, r.text)
		} else if strings.Contains(r.text, "cret") {
			t.Errorf("%s: the answer has the token: %s", name, r.text)
		}
	}
	in := send(t, "POST", at+"/login", body, form(at), nil)
	if in.code != 303 || in.location != "./" || in.cookie == nil || !in.cookie.HttpOnly || in.cookie.SameSite != http.SameSiteStrictMode ||
		strings.Contains(in.cookie.Value, "cret") || in.cookie.Secure {
		t.Fatalf("login: %+v", in)
	}
	for _, path := range []string{"/", "/overview", "/stats", "/metrics"} {
		if r := send(t, "GET", at+path, "", nil, in.cookie); r.code != 200 {
			t.Errorf("with a session %s answers %d", path, r.code)
		}
	}
	if r := send(t, "GET", at+"/login", "", nil, in.cookie); r.code != 303 || r.location != "./" {
		t.Errorf("with a session the login answers %d, %q", r.code, r.location)
	}
	change := func(origin string) int {
		header := map[string]string{"Content-Type": "application/json"}
		if origin != "" {
			header["Origin"] = origin
		}
		return send(t, "PUT", at+"/repos", "[]", header, in.cookie).code
	}
	if own, other, none := change(at), change("http://evil.example"), change(""); own != 200 || other != 403 || none != 403 {
		t.Errorf("a change with a session: own page %d, another's %d, no origin %d", own, other, none)
	}
	if r := send(t, "GET", at+"/stats", "", map[string]string{"Sec-Fetch-Site": "same-site"}, in.cookie); r.code != 403 {
		t.Errorf("a page on another port reads with the session: %d", r.code)
	}
	if r := send(t, "POST", at+"/logout", "", foreign, in.cookie); r.code != 403 {
		t.Errorf("another site ends the session: %d", r.code)
	}
	if r := send(t, "POST", at+"/logout", "", form(at), in.cookie); r.code != 303 || r.location != "login" || r.cookie.MaxAge >= 0 {
		t.Errorf("logout: %+v", r)
	}
	if r := send(t, "GET", at+"/stats", "", nil, in.cookie); r.code != 401 {
		t.Errorf("after the logout the session still reads: %d", r.code)
	}
}

// TestLogoutAfterTheSession: a browser whose session has ended gets to the login by Log out, and is not
// asked for a password in a window of its own.
func TestLogoutAfterTheSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{AdminToken: "secret"})
	cookie := &http.Cookie{Name: "cistern_session_1", Value: "gone"}
	for name, c := range map[string]struct {
		header map[string]string
		cookie *http.Cookie
		want   int
	}{
		"an ended session": {form(w.admin.URL), cookie, 303},
		"no session":       {form(w.admin.URL), nil, 303},
		"another site":     {form("http://evil.example"), cookie, 403},
	} {
		r := send(t, "POST", w.admin.URL+"/logout", "", c.header, c.cookie)
		if r.code != c.want || c.want == 303 && r.location != "login" || len(r.header.Values("WWW-Authenticate")) > 0 {
			t.Errorf("%s: %d %v", name, r.code, r.header)
		}
	}
}

// client sends a request to a handler as the client at an address.
func client(h http.Handler, from, method, path, body string, header map[string]string) *http.Response {
	r, w := httptest.NewRequest(method, "http://cistern.test"+path, strings.NewReader(body)), httptest.NewRecorder()
	r.RemoteAddr = from
	for name, value := range header {
		r.Header.Set(name, value)
	}
	h.ServeHTTP(w, r)
	return w.Result()
}

// TestWrongTokensAreBraked: a client that gives wrong tokens, in the form or in a header, is refused
// with the time that it has to wait, its next guess is not even looked at, and neither another client
// nor the right token nor a session is refused with it.
func TestWrongTokensAreBraked(t *testing.T) {
	t.Parallel()
	const one, two, login = "192.0.2.1:1000", "192.0.2.2:1000", "token="
	bearer := func(token string) map[string]string { return map[string]string{"Authorization": "Bearer " + token} }
	basic := map[string]string{"Authorization": "Basic " + base64.StdEncoding.EncodeToString([]byte("admin:wrong"))}
	own := form("http://cistern.test")
	for name, guess := range map[string]func(h http.Handler) *http.Response{
		"form":   func(h http.Handler) *http.Response { return client(h, one, "POST", "/login", login+"wrong", own) },
		"bearer": func(h http.Handler) *http.Response { return client(h, one, "GET", "/stats", "", bearer("wrong")) },
		"basic":  func(h http.Handler) *http.Response { return client(h, one, "GET", "/stats", "", basic) },
	} {
		h := newWorld(t, api.Options{AdminToken: "secret"}).server.Admin()
		in := client(h, one, "POST", "/login", login+"secret", own)
		session := map[string]string{"Cookie": in.Header.Get("Set-Cookie")}
		looked := 0
		var last *http.Response
		for range 100 {
			if last = guess(h); last.StatusCode != http.StatusTooManyRequests {
				looked++
			}
		}
		if looked < 10 || looked > 20 { // a slow machine gives more time
			t.Errorf("%s: %d of 100 guesses are looked at", name, looked)
		}
		if wait, err := strconv.Atoi(last.Header.Get("Retry-After")); err != nil || wait < 1 || wait > 10 || last.StatusCode != 429 {
			t.Errorf("%s: %d, Retry-After %q", name, last.StatusCode, last.Header.Get("Retry-After"))
		}
		for what, c := range map[string]struct {
			res  *http.Response
			want int
		}{
			"the right token in the form":  {client(h, one, "POST", "/login", login+"secret", own), 429},
			"the right token in a header":  {client(h, one, "GET", "/stats", "", bearer("secret")), 200},
			"a session":                    {client(h, one, "GET", "/stats", "", session), 200},
			"a request without a token":    {client(h, one, "GET", "/stats", "", nil), 401},
			"the page that asks for it":    {client(h, one, "GET", "/login", "", nil), 200},
			"another client":               {client(h, two, "POST", "/login", login+"secret", own), 303},
			"another client that is wrong": {client(h, two, "POST", "/login", login+"wrong", own), 403},
		} {
			if c.res.StatusCode != c.want {
				t.Errorf("%s, then %s: %d, want %d", name, what, c.res.StatusCode, c.want)
			}
		}
	}
}

// TestLoginByTLS: behind a proxy with TLS the cookie is for TLS only.
func TestLoginByTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{AdminToken: "secret"})
	header := form("https://cistern.example")
	header["Host"] = "cistern.example"
	r := send(t, "POST", w.admin.URL+"/login", "token=secret", header, nil)
	if r.code != 303 || r.cookie == nil || !r.cookie.Secure || r.cookie.Name != "cistern_session" {
		t.Errorf("%+v", r)
	}
}

// TestNoToken: without a token the dashboard is there for the addresses of this server, and nothing
// asks for a token.
func TestNoToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	at := w.admin.URL
	if r := send(t, "GET", at+"/", "", nil, nil); r.code != 200 || !strings.Contains(r.text, `id="tiles"`) || !strings.Contains(r.header.Get("Content-Security-Policy"), "script-src 'self';") {
		t.Errorf("the dashboard answers %d %v", r.code, r.header)
	}
	if r := send(t, "GET", at+"/", "", map[string]string{"Host": "evil.example"}, nil); r.code != 403 {
		t.Errorf("the dashboard answers %d by another name", r.code)
	}
	if r := send(t, "GET", at+"/login", "", nil, nil); r.code != 303 || r.location != "./" {
		t.Errorf("the login answers %d, %q", r.code, r.location)
	}
	if r := send(t, "POST", at+"/login", "token=", form(at), nil); r.code != 303 || r.cookie != nil {
		t.Errorf("a login without a token: %+v", r)
	}
	if r := send(t, "GET", at+"/dashboard/nothing.js", "", nil, nil); r.code != 404 {
		t.Errorf("a part that does not exist: %d", r.code)
	}
	if r := send(t, "GET", w.public.URL+"/overview", "", nil, nil); r.code != 404 {
		t.Errorf("the public listener shows the overview: %d", r.code)
	}
}

// TestExpiredSession: a refresh of an open page is refused without the question for a password that a
// browser would show.
func TestExpiredSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{AdminToken: "secret"})
	cookie := &http.Cookie{Name: "cistern_session_1", Value: "gone"}
	page := send(t, "GET", w.admin.URL+"/overview", "", map[string]string{"Sec-Fetch-Dest": "empty"}, cookie)
	if challenges := page.header.Values("WWW-Authenticate"); page.code != 401 || len(challenges) != 1 || !strings.HasPrefix(challenges[0], "Bearer") {
		t.Errorf("%d %q", page.code, challenges)
	}
	curl := send(t, "GET", w.admin.URL+"/overview", "", nil, nil)
	if challenges := curl.header.Values("WWW-Authenticate"); curl.code != 401 || len(challenges) != 2 {
		t.Errorf("%d %q", curl.code, challenges)
	}
}
