package intake

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"cistern/objects"
)

// Files are the CARs of a directory or a bucket.
type Files struct {
	at    objects.Destination
	files []objects.Object // by name
	next  int
	size  int64
}

// listFiles lists the files that end in carSuffix. It is an error if there is no such file.
func listFiles(ctx context.Context, at objects.Destination) (*Files, error) {
	f := &Files{at: at}
	others := 0
	err := at.List(ctx, "", func(o objects.Object) error {
		if !strings.HasSuffix(o.Name, carSuffix) {
			if others++; others > othersMax {
				return errOthers
			}
			return nil
		}
		f.size += o.Size
		f.files = append(f.files, o)
		return nil
	})
	if err == nil && len(f.files) == 0 {
		err = fmt.Errorf("no file ends in %s", carSuffix)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", at, err)
	}
	slices.SortFunc(f.files, func(a, b objects.Object) int { return cmp.Compare(a.Name, b.Name) })
	return f, nil
}

// Next returns the next file.
func (f *Files) Next(context.Context) (Entry, error) {
	if f.next == len(f.files) {
		return Entry{}, io.EOF
	}
	file := f.files[f.next]
	f.next++
	return Entry{Name: file.Name, Size: file.Size,
		Open: func(ctx context.Context) (io.ReadCloser, error) { return f.at.Get(ctx, file.Name) }}, nil
}

// Size returns the size of all files.
func (f *Files) Size() int64 { return f.size }

// Read returns 0: the sizes of the entries tell how much was read.
func (f *Files) Read() int64 { return 0 }

// Close does nothing.
func (f *Files) Close() error { return nil }

// String names the directory or bucket.
func (f *Files) String() string { return f.at.String() }
