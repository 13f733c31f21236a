package api

import (
	"context"
	"net/http"
	"time"
)

// carStream sends a CAR in pieces. Before each piece it asks whether the CAR may still be shown, and
// gives the client a time by which it must have read so far, as the CAR keeps a view of the store.
type carStream struct {
	ctx   context.Context
	w     http.ResponseWriter
	conn  *http.ResponseController
	shown func() error // nil, or the reason to stop
	start time.Time
	buf   []byte
	sent  int64
}

func newCARStream(w http.ResponseWriter, r *http.Request, shown func() error) *carStream {
	return &carStream{ctx: r.Context(), w: w, conn: http.NewResponseController(w), shown: shown,
		start: time.Now(), buf: make([]byte, 0, carPieceBytes)}
}

// Write implements io.Writer.
func (s *carStream) Write(p []byte) (n int, err error) {
	n = len(p)
	for len(p) > 0 {
		if len(s.buf) == carPieceBytes {
			if err := s.flush(); err != nil {
				return 0, err
			}
		}
		take := min(len(p), carPieceBytes-len(s.buf))
		s.buf, p = append(s.buf, p[:take]...), p[take:]
	}
	return n, nil
}

// flush sends what was written.
func (s *carStream) flush() error {
	if err := s.ctx.Err(); err != nil { // the client is gone, or the daemon stops
		return err
	}
	if err := s.shown(); err != nil {
		return err
	}
	if err := s.conn.SetWriteDeadline(s.start.Add(s.allowed())); err != nil {
		return err
	}
	n, err := s.w.Write(s.buf)
	s.sent += int64(n)
	s.buf = s.buf[:0]
	return err
}

// allowed returns the time from the start after which the next piece must have been read.
func (s *carStream) allowed() time.Duration {
	read := time.Duration(s.sent) * time.Second / carRateMin
	return min(carGrace+read, carTimeMax)
}

// end sends the rest after the CAR was written without an error, or says what becomes of the answer
// after an error.
func (s *carStream) end(err error) error {
	if err == nil {
		err = s.flush()
	}
	if err != nil && s.sent > 0 {
		return cutError{err}
	}
	return err
}
