package dump

import (
	"context"
	"fmt"
	"io"
	"strings"

	"cistern/store"
)

// Format is a form of files.
type Format struct {
	Name   string // as an operator writes it
	Media  string // the type of the content
	Suffix string // of the names of parts
	Coding Coding // of parts
	// Coded says that the content is compressed already.
	Coded bool

	open func(w io.Writer, r *Reading, o FileOptions) file
}

// Formats returns all formats.
func Formats() []Format {
	return []Format{
		{Name: "ndjson", Media: "application/x-ndjson", Suffix: ".ndjson.zst", Coding: Zstd,
			open: newNDJSON},
		{Name: "parquet", Media: "application/vnd.apache.parquet", Suffix: ".parquet", Coded: true,
			open: newParquet},
	}
}

// ParseFormat returns the format of a name.
func ParseFormat(name string) (Format, error) {
	var names []string
	for _, f := range Formats() {
		if f.Name == name {
			return f, nil
		}
		names = append(names, f.Name)
	}
	return Format{}, fmt.Errorf("format %.80q is unknown: want one of %s",
		name, strings.Join(names, ", "))
}

// FileOptions are the options of one file.
type FileOptions struct {
	// CBOR adds the bytes of each record, which its CID is the hash of.
	CBOR bool
	// Tokens has NDJSON state where a reading can go on, every some thousand lines, and at the end
	// that it is complete.
	Tokens bool
	// RowsMax bounds the rows. Default 0: as many as there are.
	RowsMax int64
	// Compute is called before a page is read and before one is written, by two goroutines, and waits
	// for the right to compute. reads says which one calls. leave gives it back. Default: no wait.
	Compute func(ctx context.Context, reads bool) (leave func(), err error)
	// BytesMax is about the most text of records before compression. Default 0: any.
	BytesMax int64
}

// file makes one file of pages of records.
type file interface {
	// add adds a record to a page. It may run while write writes another page.
	add(p *page, ev *store.Event)
	// mark adds the token of a reading that goes on behind a page, if the file has such.
	mark(p *page, token func() string)
	// write writes a page.
	write(p *page) error
	// end completes the file. token is "" if no record follows.
	end(rows int64, token string) error
}
