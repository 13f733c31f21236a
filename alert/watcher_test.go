package alert_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cistern/alert"
)

// receiver is an endpoint of messages.
type receiver struct {
	mu    sync.Mutex
	fails int      // how many attempts still fail
	tries int      // attempts
	got   []string // type and subject of each message that arrived
	ids   map[string]bool
}

// fail has the next attempts fail.
func (r *receiver) fail(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fails = n
}

func (r *receiver) send(_ context.Context, id string, body []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tries++
	if r.ids == nil {
		r.ids = map[string]bool{}
	}
	r.ids[id] = true
	if r.fails > 0 {
		r.fails--
		return errors.New("HTTP 500")
	}
	var m struct {
		Type string
		Data struct{ Kind, Subject, State, Error string }
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return err
	}
	r.got = append(r.got, fmt.Sprintf("%s %s %s %s", m.Type, m.Data.Kind, m.Data.Subject, m.Data.Error))
	return nil
}

// TestMessages: a turn to alert and the return to ok are one message each, tried again with one id
// while the endpoint fails, and given up after a bound.
func TestMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var failures []alert.Failure
		var unread error
		set := func(err error, all ...alert.Failure) {
			mu.Lock()
			defer mu.Unlock()
			failures, unread = all, err
		}
		r := &receiver{}
		w, err := alert.New(alert.Options{Send: r.send, Failures: func(time.Time) ([]alert.Failure, error) {
			mu.Lock()
			defer mu.Unlock()
			return failures, unread
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		wait := func(d time.Duration, tries, ids int, want ...string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			r.mu.Lock()
			defer r.mu.Unlock()
			if fmt.Sprint(r.got) != fmt.Sprint(want) || r.tries != tries || len(r.ids) != ids {
				t.Errorf("%v arrived by %d attempts of %d messages, want %v by %d of %d", r.got, r.tries, len(r.ids), want, tries, ids)
			}
			r.got, r.tries, r.ids = nil, 0, nil
		}
		full := alert.Failure{Kind: alert.Disk, Name: "/data", Error: "1 GiB free"}
		down := alert.Failure{Kind: alert.Source, Name: "wss://r", Attempts: 9, Error: "refused"}
		set(nil, full, down)
		wait(time.Minute, 1, 1, "alert.alert disk /data 1 GiB free")
		wait(10*time.Minute, 1, 1, "alert.alert source wss://r refused")
		wait(time.Hour, 0, 0)
		set(errors.New("the store has failed")) // nothing is known, so nothing turns
		wait(time.Hour, 0, 0)
		set(nil, full)
		r.fail(3)
		wait(time.Minute, 4, 1, "alert.ok source wss://r refused")
		r.fail(alert.SendsMax)
		set(nil)
		wait(time.Hour, alert.SendsMax, 1)
		set(nil, full)
		wait(time.Minute, 1, 1, "alert.alert disk /data 1 GiB free")
		if all := w.Subjects(); len(all) != 1 || all[0].Now != alert.Alert {
			t.Errorf("%+v", all)
		}
		r.fail(1000)
		for i := range alert.QueueMax + 50 { // an endpoint that is down holds a bounded queue
			set(nil, alert.Failure{Kind: alert.Disk, Name: fmt.Sprint(i)})
			time.Sleep(10 * time.Second)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	if _, err := alert.New(alert.Options{}); err == nil {
		t.Error("no failures are taken")
	}
	if _, err := alert.New(alert.Options{Failures: func(time.Time) ([]alert.Failure, error) { return nil, nil }, Every: -1}); err == nil {
		t.Error("a negative time is taken")
	}
}
