package export

import (
	"context"
	"net/http"
	"time"

	"cistern/api/clients"
	"cistern/api/wire"
)

// stream sends a CAR in pieces. Before each piece it checks that the CAR may still be shown, and
// sets the time by which the client must have read the piece: the CAR keeps a view of the store
// open.
type stream struct {
	ctx   context.Context
	w     http.ResponseWriter
	conn  *http.ResponseController
	shown func() error // nil, or the reason to stop
	start time.Time
	buf   []byte
	sent  int64
}

func newStream(ctx context.Context, w http.ResponseWriter, shown func() error) *stream {
	return &stream{ctx: ctx, w: w, conn: http.NewResponseController(w), shown: shown,
		start: time.Now(), buf: make([]byte, 0, pieceBytes)}
}

// Write implements io.Writer.
func (s *stream) Write(p []byte) (n int, err error) {
	n = len(p)
	for len(p) > 0 {
		if len(s.buf) == pieceBytes {
			if err := s.flush(); err != nil {
				return 0, err
			}
		}
		take := min(len(p), pieceBytes-len(s.buf))
		s.buf, p = append(s.buf, p[:take]...), p[take:]
	}
	return n, nil
}

// flush sends what was written.
func (s *stream) flush() error {
	if err := s.ctx.Err(); err != nil { // the client is gone, or the daemon stops
		return err
	}
	if err := s.shown(); err != nil {
		return err
	}
	if err := s.conn.SetWriteDeadline(s.start.Add(s.allowed())); err != nil {
		return err
	}
	return clients.Pause(s.ctx, func() error { // a slow client takes no processor
		n, err := s.w.Write(s.buf)
		s.sent += int64(n)
		s.buf = s.buf[:0]
		return err
	})
}

// allowed returns the time from the start after which the next piece must have been read.
func (s *stream) allowed() time.Duration {
	read := time.Duration(s.sent) * time.Second / readRateMin
	return min(readGrace+read, readTimeMax)
}

// end sends the rest of a CAR that was written without an error. After an error it returns a
// CutError if the client has received a part.
func (s *stream) end(err error) error {
	if err == nil {
		err = s.flush()
	}
	if err != nil && s.sent > 0 {
		return &wire.CutError{Cause: err}
	}
	return err
}
