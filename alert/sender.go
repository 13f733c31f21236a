package alert

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"cistern/loop"
)

// message is word of a turn. It is sent as {"type","timestamp","data"}.
type message struct {
	id   string
	body []byte
}

// messageData is what a message is about.
type messageData struct {
	Kind     Kind      `json:"kind"`
	Subject  string    `json:"subject"`
	State    State     `json:"state"`
	Since    time.Time `json:"since"`
	Attempts int       `json:"attempts"`
	Error    string    `json:"error"`
	Runbook  string    `json:"runbook"`
}

func newMessage(s Subject, now time.Time) (message, error) {
	body, err := json.Marshal(struct {
		Type      string      `json:"type"`
		Timestamp time.Time   `json:"timestamp"`
		Data      messageData `json:"data"`
	}{"alert." + string(s.Now), now.UTC(),
		messageData{s.Kind, s.Name, s.Now, s.Since.UTC(), s.Attempts, s.Error,
			Runbook(s.Kind)}})
	if err != nil {
		return message{}, fmt.Errorf("message about %s %q: %w", s.Kind, s.Name, err)
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // it never fails
	return message{"msg_" + hex.EncodeToString(id[:]), body}, nil
}

// queue has the messages that wait to be sent.
type queue struct {
	more chan struct{} // signals a message

	mu  sync.Mutex
	all []message // mu guards; the oldest first
}

// add adds a message, and reports false if the oldest was dropped for it.
func (q *queue) add(m message) bool {
	q.mu.Lock()
	full := len(q.all) >= queueMax
	if full {
		q.all = q.all[1:]
	}
	q.all = append(q.all, m)
	q.mu.Unlock()
	loop.Wake(q.more)
	return !full
}

func (q *queue) take() (m message, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.all) == 0 {
		return m, false
	}
	m, q.all = q.all[0], q.all[1:]
	return m, true
}

// send sends messages in order until ctx ends.
func (w *Watcher) send(ctx context.Context) error {
	for ctx.Err() == nil {
		m, ok := w.queue.take()
		if !ok {
			select {
			case <-ctx.Done():
			case <-w.queue.more:
			}
			continue
		}
		w.deliver(ctx, m)
	}
	return nil
}

// deliver tries to send a message until it arrives, or sendsMax times.
func (w *Watcher) deliver(ctx context.Context, m message) {
	wait := sendBase
	for try := 1; ; try++ {
		attempt, cancel := context.WithTimeout(ctx, sendTimeout)
		err := w.opts.Send(attempt, m.id, m.body)
		cancel()
		switch {
		case err == nil:
			w.metrics.sent.WithLabelValues(resultSent).Inc()
			return
		case ctx.Err() != nil:
			return
		case try == 1:
			w.opts.Logger.Warn("a message of an alert did not arrive, it is sent again", "err", err)
		case try == sendsMax:
			w.metrics.sent.WithLabelValues(resultFailed).Inc()
			w.opts.Logger.Error("a message of an alert is given up: GET /alerts has what alerts",
				"attempts", try, "err", err)
			return
		}
		loop.Sleep(ctx, wait, nil)
		wait *= 2
	}
}
