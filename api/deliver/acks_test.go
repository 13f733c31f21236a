package deliver_test

import (
	"context"
	"net/http/httptest"
	"testing"
	"time"

	"cistern/api/deliver"
	"cistern/api/deliver/delivertest"
	"cistern/api/durable"
	"cistern/store"
)

// What an acknowledgement in a usual form means is what its text means. Other messages are not
// taken for one.
func FuzzAck(f *testing.F) {
	for _, text := range []string{
		`{"type":"ack","id":7}`, `{"id":7,"type":"ack"}`, `{"id":7,"type":"ack"}` + "\n",
		`{"type":"ack","id":0}`, `{"type":"ack","id":9999999999999999999}`,
		`{"type":"ack","id":007}`, `{"type":"ack","id":-1}`, `{"type":"ack","id":}`,
		`{"type":"ack","id":1e3}`, `{"type":"ack","id":18446744073709551616}`,
		`{"type":"ack","id":7,"to":9}`, `{"type":"ack","id":7}}`, `{"type":"nack","id":7}`, `{"type":"ack","id":7,"id":8}`, `{}`, "",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		id, ok := deliver.ParseAck(body)
		if !ok {
			return
		}
		if same, to, err := deliver.ReadAck(body); same != id || to != 0 || err != nil {
			t.Errorf("%q is %d, not %d, %v", body, same, id, err)
		}
		if same, ok, err := deliver.ReadTapAck(body); same != id || !ok || err != nil {
			t.Errorf("%q is %d for a client of tap, not %d, %t, %v", body, same, id, ok, err)
		}
	})
}

// Both forms in which clients acknowledge need no other reader.
func TestUsualAcks(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{"type":"ack","id":1234567890}`,        // the client of tap in TypeScript
		`{"id":1234567890,"type":"ack"}` + "\n", // a map in Go, by the library's own writer
	} {
		if id, ok := deliver.ParseAck([]byte(text)); id != 1234567890 || !ok {
			t.Errorf("%q is %d, %t", text, id, ok)
		}
	}
}

// Messages that arrive together are understood in order: what is acknowledged before a message that
// ends the connection is acknowledged, in any form, and what comes after it is not.
func TestAcksBeforeAMistake(t *testing.T) {
	t.Parallel()
	w := newDurableWorld(t, durable.Options{}, delivertest.Identities(8)...)
	ws := w.follow(t)
	wantEach(t, ws, 1, 2, 3, 4, 5, 6, 7, 8)
	var frames []byte
	for _, text := range []string{
		`{"type":"ack","id":2}`, `{"id":1,"type":"ack"}`, `{ "type": "ack", "id": 5 }`,
		`{"type":"ack","id":3}`, `{"type":"ack"}`, `{"type":"ack","id":4}`,
	} {
		frames = append(frames, maskedFrame(text)...)
	}
	if _, err := ws.NetConn().Write(frames); err != nil {
		t.Fatal(err)
	}
	for {
		if _, _, err := ws.ReadMessage(); err != nil {
			break
		}
	}
	w.close(t, ws)
	if st := w.status(t); st.Outstanding != 4 {
		t.Errorf("the status is %+v", st)
	}
	wantEach(t, w.follow(t), 4, 6, 7, 8)
}

// A consumer that is behind has each page of the log read once, although the window has room for a
// part of the page only. A page is read again when it is a second old.
func TestWindowSharesPages(t *testing.T) {
	t.Parallel()
	const events, window, page = 1000, 10, 100
	w := newDurableWorldWith(t, deliver.Options{PageEvents: page},
		durable.Options{WindowEvents: window}, delivertest.Identities(events)...)
	ws, began := w.follow(t), time.Now()
	for id := uint64(1); id <= events; id++ {
		wantEach(t, ws, id)
		acknowledge(t, ws, id)
	}
	w.close(t, ws)
	most := events/page + 4*(1+int(time.Since(began).Seconds()))
	if reads, _ := w.log.Readings(); reads > most {
		t.Errorf("the log was read %d times, more than %d", reads, most)
	}
}

// BenchmarkAcknowledged is the delivery of a log that exists to a consumer in a process of its own,
// which acknowledges each event as soon as it has it. server-cpu is the CPU time of this process.
func BenchmarkAcknowledged(b *testing.B) {
	const records = 200_000
	s := postStore(b, store.Options{}, records)
	subs, err := durable.New(durable.Options{Store: s, Log: s})
	if err != nil {
		b.Fatal(err)
	}
	d, h := deliver.NewWith(s, deliver.Options{Subscriptions: subs})
	srv := httptest.NewServer(h)
	b.Cleanup(func() {
		srv.Close()
		if err := d.Wait(context.WithoutCancel(b.Context())); err != nil {
			b.Error(err)
		}
	})
	paths := map[string]string{"a": deliver.Events, durable.Tap: "/channel"}
	for _, name := range []string{"a", durable.Tap} {
		b.Run("subscription="+name, func(b *testing.B) {
			used := cpuTime(b)
			for left := b.N; left > 0; left -= records {
				wanted := durable.Wanted{Start: durable.Start{Oldest: true}, Share: durable.ByDID,
					Filter: durable.Filter{Kinds: []string{"record"}}}
				if _, _, err := subs.Put(b.Context(), name, wanted); err != nil {
					b.Fatal(err)
				}
				c := consumers{Address: srv.Listener.Addr().String(), Path: paths[name],
					Acknowledges: true, Queries: []string{""}, Events: min(left, records)}
				if err := c.start(b)(); err != nil {
					b.Fatal(err)
				}
				if err := subs.Drop(name); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((cpuTime(b)-used).Nanoseconds())/float64(b.N), "server-cpu-ns/op")
		})
	}
}
