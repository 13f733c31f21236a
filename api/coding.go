package api

import (
	"bytes"
	"net/http"

	"cistern/api/openapi"
	"cistern/api/wire"

	"github.com/klauspost/compress/gzhttp"
)

// coder compresses answers by gzip or zstd. It does so in memory, in the turn of a query: a client
// that reads slowly holds a short answer, and no encoder.
type coder struct {
	wrap func(http.Handler) http.HandlerFunc
}

func newCoder() (*coder, error) {
	wrap, err := gzhttp.NewWrapper(gzhttp.MinSize(codedBytesMin))
	return &coder{wrap}, err
}

// coded is a body with the headers that say how it is compressed.
type coded struct {
	header http.Header
	bytes  []byte
}

// head adds the headers to those of an answer.
func (c *coded) head(h http.Header) {
	for name, values := range c.header {
		if name == "Vary" {
			h[name] = append(h[name], values...)
			continue
		}
		h[name] = values
	}
}

// code returns a body of a type as the client accepts it (Accept-Encoding).
func (c *coder) code(r *http.Request, media string, body []byte) coded {
	if r.Header.Get("Accept-Encoding") == "" {
		return coded{http.Header{"Vary": {"Accept-Encoding"}}, body}
	}
	out := memory{header: http.Header{"Content-Type": {media}}}
	c.wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(body) // memory takes everything
	})).ServeHTTP(&out, r)
	if out.header.Get("Content-Encoding") == "" {
		return coded{out.header, body} // not a copy
	}
	return coded{out.header, out.body.Bytes()}
}

// description is the document of the public listener.
type description struct {
	document []byte
	coder    *coder
}

func describe(version string, c *coder) (description, error) {
	document, err := openapi.Document(version)
	return description{document, c}, err
}

// show handles GET /openapi.json.
func (d *description) show(w http.ResponseWriter, r *http.Request) error {
	body := d.coder.code(r, wire.TypeJSON, d.document)
	body.head(w.Header())
	wire.WriteBody(w, http.StatusOK, body.bytes)
	return nil
}

// memory is a response that is kept in memory.
type memory struct {
	header http.Header
	body   bytes.Buffer
}

func (m *memory) Header() http.Header         { return m.header }
func (m *memory) WriteHeader(int)             {}
func (m *memory) Write(b []byte) (int, error) { return m.body.Write(b) }
