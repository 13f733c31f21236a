package export

import (
	"context"
	"net/http"
	"time"

	"cistern/api/clients"
	"cistern/api/wire"
)

// stream sends an answer in pieces. Before each piece it checks that the answer may still be shown,
// and sets the time by which the client must have read the piece.
type stream struct {
	ctx   context.Context
	w     http.ResponseWriter
	conn  *http.ResponseController
	shown func() error // nil, or the reason to stop
	// views says that a view of the store is open until the end, so that all of the time counts. Else
	// only that counts in which the server waits for the client.
	views bool

	start  time.Time
	waited time.Duration // for the client
	buf    []byte
	sent   int64
	before int64 // of sent, when the view was opened
}

func newStream(ctx context.Context, w http.ResponseWriter, shown func() error) *stream {
	return &stream{ctx: ctx, w: w, conn: http.NewResponseController(w), shown: shown,
		views: true, start: time.Now(), buf: make([]byte, 0, pieceBytes)}
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

// holdView has the stream treat what is written until the returned function is called as read from
// a view that is open so long, of an account that is shown while shown returns nil.
func (s *stream) holdView(shown func() error) (done func()) {
	was := *s
	s.views, s.shown, s.start, s.before = true, shown, time.Now(), s.sent
	return func() { s.views, s.shown, s.start, s.before = was.views, was.shown, was.start, was.before }
}

// flush sends what was written.
func (s *stream) flush() error {
	if err := s.ctx.Err(); err != nil { // the client is gone, or the daemon stops
		return err
	}
	if err := s.shown(); err != nil {
		return err
	}
	begun := time.Now()
	if err := s.conn.SetWriteDeadline(s.deadline(begun)); err != nil {
		return err
	}
	return clients.Pause(s.ctx, func() error { // a slow client takes no processor
		n, err := s.w.Write(s.buf)
		s.sent += int64(n)
		s.waited += time.Since(begun)
		s.buf = s.buf[:0]
		return err
	})
}

// deadline returns when the next piece must have been read.
func (s *stream) deadline(now time.Time) time.Time {
	allowed := readGrace + time.Duration(s.sent-s.before)*time.Second/readRateMin
	if s.views {
		return s.start.Add(min(allowed, readTimeMax))
	}
	return now.Add(allowed - s.waited)
}

// end sends the rest of an answer that was written without an error. After an error it returns a
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
