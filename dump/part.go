package dump

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
	"time"

	"cistern/objects"
)

const (
	partPrefix = "records-"
	noteSuffix = ".json"
)

// note is kept beside a part until the export is complete: all that is needed to go on behind it.
type note struct {
	Part
	Of subject `json:"of"`
	// Resume continues the reading behind the part; "" if the part is the last one.
	Resume string `json:"resume,omitempty"`
}

// subject tells exports apart. All parts of an export have the same.
type subject struct {
	Format string    `json:"format"`
	CBOR   bool      `json:"cbor,omitempty"`
	Epoch  string    `json:"epoch"`
	Filter uint32    `json:"filter"` // its sum
	Head   uint64    `json:"head"`
	Begun  time.Time `json:"begun"`
}

// continues reports whether an export that was interrupted is one of what is asked for now.
func (s subject) continues(asked subject) bool {
	return s.Format == asked.Format && s.CBOR == asked.CBOR && s.Epoch == asked.Epoch &&
		s.Filter == asked.Filter
}

// partStem returns the name of a part without a suffix. Parts are counted from 1.
func partStem(number int) string { return fmt.Sprintf("%s%05d", partPrefix, number) }

// spool is a temporary file that has one part, with its size and its sum.
type spool struct {
	file *os.File
	buf  *bufio.Writer
	hash hash.Hash
	size int64
}

func newSpool(dir string) (*spool, error) {
	f, err := os.CreateTemp(dir, "cistern-export-*")
	if err != nil {
		return nil, err
	}
	// Without a name the file is gone when the process ends, however it ends.
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s := &spool{file: f, hash: sha256.New()}
	s.buf = bufio.NewWriterSize(writerFunc(s.write), 256<<10)
	return s, nil
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }

func (s *spool) write(p []byte) (int, error) {
	n, err := s.file.Write(p)
	_, _ = s.hash.Write(p[:n]) // a hash does not fail
	s.size += int64(n)
	return n, err
}

// content returns what was written.
func (s *spool) content() (objects.Content, error) {
	err := s.buf.Flush()
	if err == nil {
		_, err = s.file.Seek(0, io.SeekStart)
	}
	return objects.Content{Reader: s.file, Size: s.size, Sum: objects.Sum(s.hash.Sum(nil))}, err
}

func (s *spool) close() error { return s.file.Close() }

// part writes the next part and its note.
func (x *export) part(ctx context.Context) (err error) {
	stem := partStem(len(x.manifest.Parts) + 1)
	if len(x.manifest.Parts) == partsMax {
		return fmt.Errorf("the export has more than %d parts", partsMax)
	}
	s, err := newSpool(x.TempDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	w, err := Compress(s.buf, x.Format.Coding)
	if err != nil {
		return err
	}
	written, err := x.reading.WriteFile(ctx, w, x.Format,
		FileOptions{CBOR: x.CBOR, RowsMax: x.PartRows, BytesMax: x.PartBytes}, x.wrote)
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	if written.Rows == 0 && len(x.manifest.Parts) > 0 {
		return nil // the part before had the last record
	}
	c, err := s.content()
	if err != nil {
		return err
	}
	p := Part{Name: stem + x.Format.Suffix, Rows: written.Rows, Bytes: c.Size, SHA: c.Sum.String(),
		First: written.First, Last: written.Last}
	if err := x.to.Put(ctx, x.Prefix+p.Name, c); err != nil {
		return err
	}
	// A crash here leaves a part that is written again.
	n := note{Part: p, Of: x.of}
	if !x.reading.Ended() {
		n.Resume = x.reading.Token()
	}
	text, err := json.Marshal(n)
	if err == nil {
		err = objects.PutText(ctx, x.to, x.Prefix+stem+noteSuffix, text)
	}
	if err != nil {
		return err
	}
	x.add(p)
	return nil
}

// notes returns the notes of the parts that a destination has whole, in order, up to the first one
// that it has not.
func (x *export) notes(ctx context.Context) (all []note, err error) {
	sizes := map[string]int64{}
	err = x.to.List(ctx, x.Prefix+partPrefix, func(o objects.Object) error {
		sizes[strings.TrimPrefix(o.Name, x.Prefix)] = o.Size
		return nil
	})
	if err != nil {
		return nil, err
	}
	for {
		name := partStem(len(all)+1) + noteSuffix
		if _, ok := sizes[name]; !ok {
			return all, nil
		}
		text, err := objects.ReadAll(ctx, x.to, x.Prefix+name, noteBytesMax)
		if err != nil {
			return nil, err
		}
		var n note
		if err := json.Unmarshal(text, &n); err != nil {
			return nil, fmt.Errorf("%s in %s: %w: %w", x.Prefix+name, x.to, objects.ErrDamaged, err)
		}
		size, ok := sizes[n.Name]
		if !ok || size != n.Bytes || !strings.HasPrefix(n.Name, partStem(len(all)+1)+".") ||
			len(all) > 0 && n.Of != all[0].Of {
			return all, nil
		}
		all = append(all, n)
	}
}

// clean deletes parts and notes beyond a number of parts, the notes first. With notes also those of
// the other parts are deleted.
func (x *export) clean(ctx context.Context, parts int, notes bool) error {
	var old, rest []string
	err := x.to.List(ctx, x.Prefix+partPrefix, func(o objects.Object) error {
		name := strings.TrimPrefix(o.Name, x.Prefix)
		number := 0
		_, err := fmt.Sscanf(name, partPrefix+"%05d.", &number)
		isNote := strings.HasSuffix(name, noteSuffix)
		switch {
		case err != nil:
		case isNote && (notes || number > parts):
			old = append(old, o.Name)
		case !isNote && number > parts:
			rest = append(rest, o.Name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range append(old, rest...) {
		if err := x.to.Delete(ctx, name); err != nil {
			return err
		}
	}
	return nil
}
