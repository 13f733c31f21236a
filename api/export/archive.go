package export

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/netip"
	"time"

	"cistern/dump"
	"cistern/dump/cars/manifest"
	"cistern/store"
)

// archive is a tar archive of whole repositories that is being sent: a CAR for each, a part of the
// manifest behind those that it has, and behind each part what is needed to go on.
type archive struct {
	e       *Records
	client  netip.Prefix
	reading *dump.Reading
	stream  *stream
	tar     *tar.Writer
	held    *heldCAR
	left    int64 // repositories that may follow
	all     manifest.Manifest
}

// resumption is what an archive has behind a part of its manifest that is not the last.
type resumption struct {
	Resume string `json:"resume"` // the parameter of a request that goes on
	Epoch  string `json:"epoch"`
	Head   uint64 `json:"head"`
}

const resumptionName = "resume.json"

// LeftOut returns the reason why a repository is left out of an export, by the error of its CAR; ""
// for any other error.
func LeftOut(err error) string {
	switch {
	case errors.Is(err, ErrMismatch):
		return manifest.Mismatch
	case errors.Is(err, ErrIncomplete), errors.Is(err, store.ErrStale):
		return manifest.Incomplete
	}
	return ""
}

// sendArchive sends an archive of the repositories of a reading.
func (e *Records) sendArchive(
	ctx context.Context, s *stream, out io.Writer, client netip.Prefix, asked request,
	reading *dump.Reading,
) error {
	a := &archive{e: e, client: client, reading: reading, stream: s, tar: tar.NewWriter(out),
		held: &heldCAR{hash: sha256.New()}, left: int64(rowsMax)}
	if asked.options.RowsMax > 0 {
		a.left = asked.options.RowsMax
	}
	a.all = manifest.New(reading.Epoch(), reading.Head(), asked.filter.DIDs(), time.Now())
	a.all.Resumed = asked.resume != ""
	for !reading.Ended() && a.left > 0 && len(a.all.Parts) < archivePartsMax {
		if err := a.part(ctx); err != nil {
			return err
		}
	}
	if reading.Ended() {
		a.all.End(time.Now())
		if err := a.putJSON(ctx, manifest.Name, &a.all); err != nil {
			return err
		}
	}
	return a.compute(ctx, func(context.Context) error { return a.tar.Close() })
}

// compute calls fn with the right to compute, which it gives back while the client reads.
func (a *archive) compute(ctx context.Context, fn func(context.Context) error) error {
	slotted, leave, err := a.e.queue.Enter(ctx, a.client)
	if err != nil {
		return err
	}
	defer leave()
	a.stream.ctx = slotted
	defer func() { a.stream.ctx = ctx }()
	return fn(slotted)
}

// part sends some repositories and their part of the manifest.
func (a *archive) part(ctx context.Context) error {
	var page []store.PassRepo
	var ended bool
	err := a.compute(ctx, func(context.Context) (err error) {
		pass, at := a.reading.Pass()
		page, ended, err = a.e.store.PassRepos(pass, at, int(min(archiveRepos, a.left)))
		return err
	})
	if err != nil {
		return err
	}
	if len(page) == 0 {
		_, at := a.reading.Pass()
		a.reading.MoveTo(at, ended)
		return nil
	}
	var lines []manifest.Line
	bytes := int64(0)
	for i, r := range page {
		var l manifest.Line
		err := a.compute(ctx, func(ctx context.Context) (err error) {
			l, err = a.repository(ctx, r.DID)
			return err
		})
		if err != nil {
			return err
		}
		lines, bytes = append(lines, l), bytes+l.Bytes
		last := ended && i == len(page)-1
		a.reading.MoveTo(r.Behind, last)
		if bytes >= archiveBytes {
			break
		}
	}
	a.left -= int64(len(lines))
	return a.putPart(ctx, page[0].Number, lines)
}

// putPart sends a part of the manifest, and behind it what is needed to go on. Its name has the
// number of its first repository, so that an archive that goes on has other names.
func (a *archive) putPart(ctx context.Context, number uint64, lines []manifest.Line) error {
	if err := a.e.store.Settled(ctx); err != nil {
		return err
	}
	text, p, err := manifest.Encode(fmt.Sprintf("manifest-%013d.ndjson", number), lines)
	if err != nil {
		return err
	}
	if err := a.put(ctx, p.Name, text); err != nil {
		return err
	}
	a.all.Add(p, lines)
	if a.reading.Ended() {
		return nil
	}
	return a.putJSON(ctx, resumptionName,
		resumption{a.reading.Token(), a.reading.Epoch(), a.reading.Head()})
}

func (a *archive) putJSON(ctx context.Context, name string, value any) error {
	text, err := manifest.JSON(value)
	if err != nil {
		return err
	}
	return a.put(ctx, name, text)
}

// put sends a file.
func (a *archive) put(ctx context.Context, name string, text []byte) error {
	return a.compute(ctx, func(context.Context) error {
		if err := a.begin(name, int64(len(text))); err != nil {
			return err
		}
		_, err := a.tar.Write(text)
		return err
	})
}

// begin begins a file.
func (a *archive) begin(name string, size int64) error {
	return a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644,
		ModTime: a.all.Begun})
}

// repository sends the CAR of a repository, or says in its line why it has none. A tar archive has
// the size of a file before its bytes. So a CAR is made before it is sent: a small one is held, and
// its view is closed; a large one is made again.
func (a *archive) repository(ctx context.Context, did string) (l manifest.Line, err error) {
	v, err := a.e.store.ViewRepo(did)
	if errors.Is(err, store.ErrNotFound) {
		return manifest.Line{DID: did, LeftOut: manifest.Unknown}, nil
	}
	if err != nil {
		return l, err
	}
	open := true
	defer func() {
		if open {
			err = errors.Join(err, v.Close())
		}
	}()
	if l = manifest.Describe(v.Repo()); l.LeftOut != "" {
		return l, nil
	}
	a.held.reset()
	x, err := a.e.exporter.Open(ctx, v, Part{})
	if err == nil {
		err = x.Write(ctx, a.held, "")
	}
	if l.LeftOut = LeftOut(err); l.LeftOut != "" {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	l.SetCAR(v.Repo().Records, a.held.size, a.held.sum())
	if a.held.whole() {
		open = false
		if err := errors.Join(v.Close(), a.begin(l.Path, l.Bytes)); err != nil {
			return l, err
		}
		_, err = a.tar.Write(a.held.text)
		return l, err
	}
	if err := a.begin(l.Path, l.Bytes); err != nil {
		return l, err
	}
	defer a.stream.holdView(func() error { return a.e.shown(v.Repo()) })()
	return l, x.Write(ctx, a.tar, "")
}

// heldCAR measures a CAR, and holds it as long as it is small.
type heldCAR struct {
	text []byte
	size int64
	hash hash.Hash
}

func (h *heldCAR) reset() {
	h.text, h.size = h.text[:0], 0
	h.hash.Reset()
}

// Write adds to the CAR.
func (h *heldCAR) Write(p []byte) (int, error) {
	h.size += int64(len(p))
	_, _ = h.hash.Write(p) // a hash does not fail
	if h.size <= heldBytesMax {
		h.text = append(h.text, p...)
	}
	return len(p), nil
}

// whole reports whether text is the CAR.
func (h *heldCAR) whole() bool { return h.size == int64(len(h.text)) }

// sum returns the SHA-256 of the CAR.
func (h *heldCAR) sum() string { return hex.EncodeToString(h.hash.Sum(nil)) }
