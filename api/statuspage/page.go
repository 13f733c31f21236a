package statuspage

import (
	"embed"
	"net/http"
	"slices"

	"cistern/api/dashboard"
)

//go:embed files
var embedded embed.FS

// Prefix is the path below which the parts of the page are.
const Prefix = "/status/"

// shared are the files of the dashboard that the page uses too.
var shared = []string{"charts.js", "format.js", "icon.svg", "states.js", "style.css", "table.js",
	"uplot-license.txt", "uplot.css", "uplot.js"}

// Page serves the files of the page.
type Page struct {
	own, dashboard *dashboard.Files
}

// New returns the page, which shares files with the dashboard.
func New(of *dashboard.Files) (*Page, error) {
	own, err := dashboard.ReadFiles(embedded)
	return &Page{own, of}, err
}

// Show answers with the page.
func (p *Page) Show(w http.ResponseWriter, r *http.Request) { p.own.Serve(w, r, "status.html") }

// Part answers with a part of the page. found is false, and nothing is written, if there is no such
// part.
func (p *Page) Part(w http.ResponseWriter, r *http.Request, name string) (found bool) {
	if slices.Contains(shared, name) {
		return p.dashboard.Serve(w, r, name)
	}
	return name == "status.js" && p.own.Serve(w, r, name)
}
