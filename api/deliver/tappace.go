package deliver

import (
	"sync"
	"time"
)

// Limits of the events that a client of tap has not acknowledged. It handles one after the other,
// reads no more than 16 ahead, and ends the connection if a pong does not arrive within 10 seconds:
// it reads the pong behind the events that were sent before.
const (
	// tapAhead is for how long a client has events to handle, at the rate at which it acknowledges.
	tapAhead = 2 * time.Second
	// tapSentMin is how many events are sent at the beginning, and at any rate.
	tapSentMin = 16
	// tapSentMax is beyond any window.
	tapSentMax = 1 << 20
	// tapEvery is how often the rate is measured. A client that acknowledges quickly is sent twice as
	// many before that.
	tapEvery = time.Second
	// tapForget is after how long an event is not counted any more. It was sent again, perhaps to
	// another client.
	tapForget = time.Minute
)

// tapPace decides how many events a client of tap is sent before it acknowledges.
type tapPace struct {
	mu    sync.Mutex
	sent  map[uint64]time.Time // mu guards: events sent on this connection and not acknowledged
	most  int                  // mu guards: how many events sent may have
	count int                  // mu guards: acknowledged since began
	began time.Time            // mu guards
}

func newTapPace() *tapPace {
	return &tapPace{sent: map[uint64]time.Time{}, most: tapSentMin}
}

// room returns how many events may be sent now.
func (p *tapPace) room(now time.Time) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch elapsed := now.Sub(p.began); {
	case elapsed >= tapEvery:
		p.measure(now, elapsed)
	case p.count >= p.most:
		// It has handled as many as it was ever sent ahead, in less than tapAhead.
		p.most = min(2*p.most, tapSentMax)
		p.count, p.began = 0, now
	}
	return max(0, p.most-len(p.sent))
}

// measure adapts most to the acknowledgements of the time that has elapsed. mu is held.
func (p *tapPace) measure(now time.Time, elapsed time.Duration) {
	if p.count > 0 { // otherwise there is no rate: there may have been nothing to send
		ahead := float64(p.count) * float64(tapAhead) / float64(elapsed)
		p.most = max(tapSentMin, int(min(ahead, tapSentMax)))
	}
	p.count, p.began = 0, now
	for id, at := range p.sent {
		if now.Sub(at) >= tapForget {
			delete(p.sent, id)
		}
	}
}

// send counts events that are about to be sent.
func (p *tapPace) send(ids []uint64, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range ids {
		p.sent[id] = now
	}
}

// acknowledged counts acknowledgements. It reports whether any of these events was sent on this
// connection.
func (p *tapPace) acknowledged(ids ...uint64) (any bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range ids {
		if _, ok := p.sent[id]; ok {
			delete(p.sent, id)
			p.count++
			any = true
		}
	}
	return any
}
