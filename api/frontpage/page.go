package frontpage

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"cistern/api/dashboard"
	"cistern/api/openapi"
)

//go:embed files
var embedded embed.FS

// Prefix is the path below which the parts of the page are.
const Prefix = "/page/"

// Facts are what the page shows. All are read in constant time.
type Facts struct {
	// Base begins the addresses of examples: see Base.
	Base    string
	Version string
	// Accounts, Records and Collections count what queries show.
	Accounts, Records, Collections int64
	// Oldest and Head are the ids of the oldest and the newest event that are kept.
	Oldest, Head uint64
	// Newest is the time of the newest event. Zero: the log has none.
	Newest time.Time
	// Following reports whether a firehose is connected, and Lag how far it is behind.
	Following bool
	Lag       time.Duration
	// Ephemeral reports that the store keeps events only.
	Ephemeral bool
	// Status reports that there is a status page.
	Status bool
	// Example is what examples are about. Without a DID, they have placeholders.
	Example openapi.Values
	// Answered reports whether the server answers a route.
	Answered func(openapi.Route) bool
}

// Page makes the page.
type Page struct {
	*dashboard.Files
	page *template.Template
}

// New returns the page, whose files are part of the binary.
func New() (*Page, error) {
	files, err := dashboard.ReadFiles(embedded)
	if err != nil {
		return nil, err
	}
	page, err := template.New("page.html").
		Funcs(template.FuncMap{"number": number, "lag": lag}).
		ParseFS(embedded, "files/page.html")
	return &Page{files, page}, err
}

// liveBefore is how many events before the page live events begin with.
const liveBefore = 10

// placeholders stand in examples if the store has no record to name.
var placeholders = openapi.Values{DID: "DID", Handle: "HANDLE", Host: "HOST",
	Collection: "COLLECTION", Rkey: "KEY", CID: "CID"}

// Render returns the page as HTML. Equal facts give equal bytes.
func (p *Page) Render(f Facts) ([]byte, error) {
	about := f.Example
	if about.DID == "" {
		about = placeholders
	}
	var out bytes.Buffer
	err := p.page.Execute(&out, struct {
		Facts
		Placeholders bool
		Events       int64
		Cursor       uint64
		Groups       []group
	}{f, f.Example.DID == "", int64(f.Head + 1 - min(f.Oldest, f.Head+1)),
		max(f.Oldest, f.Head+1-min(f.Head+1, liveBefore)), groups(f, about)})
	return out.Bytes(), err
}

// host is what the header Host may be to stand in examples: a name or an address, with a port.
var host = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?$`)

// Base returns scheme and host of a request. X-Forwarded-Proto is not trusted: behind a proxy that
// speaks TLS the scheme is http, and the script of the page mends it. A header Host that no host
// can have, such as one with a quote, becomes HOST.
func Base(r *http.Request) string {
	scheme, name := "http://", r.Host
	if r.TLS != nil {
		scheme = "https://"
	}
	if !host.MatchString(name) {
		name = "HOST"
	}
	return scheme + name
}

// number returns a number with its digits in groups of three.
func number(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// lag returns a duration as the page shows it, in units that do not change from answer to answer
// while the daemon keeps up.
func lag(d time.Duration) string {
	switch {
	case d < 2*time.Second:
		return "under 2 s"
	case d < 2*time.Minute:
		return strconv.Itoa(int(d.Seconds())) + " s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d.Minutes())) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + " h"
	}
	return strconv.Itoa(int(d.Hours()/24)) + " days"
}
