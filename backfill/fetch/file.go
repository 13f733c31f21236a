package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"

	"cistern/ingest/repo"
)

// File is a CAR that does not come from a host. It was read to its end, and every block hashes to
// its CID. Neither its signature nor its tree is checked yet. It belongs to one goroutine at a
// time.
type File struct {
	Commit  repo.Commit // as the CAR states it
	car     *repo.CAR
	session *session // whose memory the CAR takes
}

// ReadFile reads a CAR to its end, within the limits of a fetch. The file must be passed to Verify,
// or closed. Errors of r are wrapped and are not repo.ErrInvalid.
func (c *Copier) ReadFile(r io.Reader) (*File, error) {
	s := &session{c: c}
	f := &File{session: s}
	car, err := repo.ReadCAR(r, s.within(s.wholeCAR()))
	if err != nil {
		s.forgetMemory()
		return nil, tooLarge(err)
	}
	f.car = car
	block, err := commitOf(car)
	if err == nil {
		f.Commit, err = repo.ParseCommit(block)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Verify checks the file as a fetch checks what a host sends, but for a former key: only the host
// of an account vouches for that. The host of the request is not asked. The copy takes the file
// over, and an error closes it.
func (f *File) Verify(ctx context.Context, req *Request) (*Copy, error) {
	s := f.session
	s.to, s.req = &req.Target, req
	if err := s.verify(ctx, f.car); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s.copyOf(f.car), nil
}

// Close gives back memory and spool.
func (f *File) Close() error {
	err := f.car.Close()
	f.session.forgetMemory()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSpool, err)
	}
	return nil
}
