package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"cistern/console"
	"cistern/loop"
)

// Filter chooses events. An empty list and a nil Live choose all.
type Filter struct {
	Collections []string `json:"collections,omitempty"`
	DIDs        []string `json:"dids,omitempty"`
	Kinds       []string `json:"kinds,omitempty"`
	Actions     []string `json:"actions,omitempty"`
	Live        *bool    `json:"live,omitempty"`
}

// query returns the filter as parameters of GET /stream.
func (f Filter) query() url.Values {
	query := url.Values{}
	for name, items := range map[string][]string{"collections": f.Collections, "dids": f.DIDs,
		"kinds": f.Kinds, "actions": f.Actions} {
		if len(items) > 0 {
			query[name] = items
		}
	}
	if f.Live != nil {
		query.Set("live", strconv.FormatBool(*f.Live))
	}
	return query
}

// Follow is what to follow, and what to do with it.
type Follow struct {
	Filter Filter
	// Cursor is the id to begin at; 0 is the oldest event kept. Default: the next event, or with
	// UntilHead the oldest.
	Cursor *uint64
	// Since is the time of the first event, if it is not zero and there is no Cursor.
	Since time.Time
	// UntilHead ends at the newest event that the log has at the beginning. Default: never.
	UntilHead bool
	// Event is called for each event in the order of ids, each once. If it returns ErrStop, Follow
	// ends without an error; any other error ends it too. It does not keep the event. Required.
	Event func(*Event) error
	// Lost is called when the connection is lost, and after each attempt to make another one that
	// fails. next is the id to go on at, or 0 if the beginning is not known as an id yet. wait is the
	// time until the next attempt. Required.
	Lost func(err error, next uint64, wait time.Duration)
}

// ErrStop ends Follow without an error.
var ErrStop = errors.New("stop following")

// pace has the times of a follower.
type pace struct {
	// retry is the wait before the first attempt to connect again. It doubles up to retryMax.
	retry, retryMax time.Duration
	// ask is how often a stream is asked for its place. The events that a filter leaves out move it
	// too, and retention may have deleted the place of the last event by the time it is needed.
	ask time.Duration
}

func usualPace() pace {
	return pace{retry: time.Second, retryMax: 30 * time.Second, ask: 30 * time.Second}
}

// follower is a call of Follow.
type follower struct {
	*Client
	Follow
	cursor uint64 // of the next event; 0: not known yet, begin at Since or at the oldest event
	epoch  string // of cursor; "": any
	head   uint64 // the last event, with UntilHead

	connected bool          // at least once
	wait      time.Duration // before the next attempt
}

// Follow calls o.Event for the events of the log until ctx ends. It connects again when a
// connection is lost, but not if the first one cannot be made.
func (c *Client) Follow(ctx context.Context, o Follow) error {
	f := &follower{Client: c, Follow: o, wait: c.pace.retry}
	err := f.begin(ctx)
	for err == nil {
		err = f.stream(ctx)
		if lost := new(lostError); ctx.Err() == nil && f.connected && errors.As(err, &lost) {
			err = f.retry(ctx, lost.error)
		}
	}
	if ctx.Err() != nil || errors.Is(err, ErrStop) {
		return nil
	}
	return err
}

// begin finds the place where the stream begins. It names the place although the server could
// choose the next event: a connection that is lost before its first event is then no gap.
func (f *follower) begin(ctx context.Context) error {
	var stats struct {
		Log struct {
			Epoch string
			Head  uint64
		}
	}
	_, err := f.Do(ctx, "GET", "/stats", nil, nil, func(line json.RawMessage) error {
		return json.Unmarshal(line, &stats)
	})
	if err != nil {
		return err
	}
	f.head = stats.Log.Head
	switch {
	case f.Cursor != nil:
		f.cursor = *f.Cursor
	case f.Since.IsZero() && !f.UntilHead:
		f.cursor, f.epoch = f.head+1, stats.Log.Epoch
	}
	return nil
}

// retry waits until the next attempt to connect.
func (f *follower) retry(ctx context.Context, lost error) error {
	f.Lost(lost, f.cursor, f.wait)
	loop.Sleep(ctx, f.wait, nil)
	f.wait = min(2*f.wait, f.pace.retryMax)
	return ctx.Err()
}

// take takes a message of the stream. It reports whether the stream is to be asked for its place at
// once.
func (f *follower) take(text []byte) (ask bool, err error) {
	var m message
	if err := json.Unmarshal(text, &m); err != nil {
		return false, fmt.Errorf("message %s of %s: %w",
			console.Clip(console.Printable(string(text)), 80), f.base, err)
	}
	f.wait = f.pace.retry
	switch m.Type {
	case "error":
		err := fmt.Errorf("the daemon at %s ends the stream: %s: %s", f.base,
			console.Printable(m.Error), console.Printable(m.Message))
		if m.Error == tooSlow {
			err = &lostError{err}
		}
		return false, err
	case "updated": // every event before its id has been sent
		f.cursor = m.ID
		if f.UntilHead && m.ID > f.head {
			return false, ErrStop
		}
		return f.UntilHead, nil
	}
	if f.UntilHead && m.ID > f.head {
		return false, ErrStop
	}
	m.JSON = text
	if err := f.Event(&m.Event); err != nil {
		return false, err
	}
	f.cursor = m.ID + 1
	if f.UntilHead && m.ID == f.head {
		return false, ErrStop
	}
	return false, nil
}

// tooSlow is the error of a consumer that did not read for too long. The stream can go on.
const tooSlow = "ConsumerTooSlow"
