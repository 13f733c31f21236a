package durable_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"cistern/api/durable"
	"cistern/api/wire"
	"cistern/store"
	"cistern/store/storetest"
)

// TestStart: where a new subscription begins.
func TestStart(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]durable.Start{
		`{}`: {}, `{"start":null}`: {}, `{"start":"head"}`: {}, `{"start":"oldest"}`: {Oldest: true},
		`{"start":0}`: {Oldest: true}, `{"start":7}`: {ID: 7},
		`{"start":"2026-01-02T15:04:05Z"}`:              {Since: 1767366245000000},
		`{"start": "2026-01-02T16:04:05.000007+01:00"}`: {Since: 1767366245000007},
	} {
		var w durable.Wanted
		if err := json.Unmarshal([]byte(text), &w); err != nil || w.Start != want {
			t.Errorf("%s: %+v, %v, want %+v", text, w.Start, err, want)
		}
	}
	for _, text := range []string{`"middle"`, `-1`, `1.5`, `"7"`, `"2026-01-02"`, `"0001-01-01T00:00:00Z"`, `[]`, `{}`, `true`,
		`18446744073709551616`} {
		var w durable.Wanted
		err := json.Unmarshal([]byte(`{"start":`+text+`}`), &w)
		var r *wire.Refusal
		if !errors.As(err, &r) || r.Name != "InvalidRequest" || !strings.Contains(r.Message, strings.Trim(text, `"`)) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// FuzzWanted: whatever is asked for is refused by name or put, and is then what it says.
func FuzzWanted(f *testing.F) {
	for _, text := range []string{`{}`, `{"start":"oldest","share":"did"}`, `{"start":1,"share":"exclusive"}`,
		`{"start":"2026-01-02T15:04:05Z"}`, `{"filter":{"dids":["did:plc:a"],"live":true},"share":"x"}`, `{"start":[]}`,
		`{"start":"head","filter":{"kinds":["commit"]}}`, `{"webhook":{"url":"https://a.test","secrets":["whsec_YQ=="],"events":2}}`,
		`{"webhook":{"url":"https://a.test","secrets":["whsec_a2tra2tra2tra2tra2tra2tra2tra2tr"],"requests":16}}`,
		`{"webhook":{"url":"https://a.test"},"share":"did"}`, `{"webhook":null}`} {
		f.Add(text)
	}
	s, err := store.Open(store.Options{FS: storetest.NewCrashFS(), Dir: "db"})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	r, err := durable.New(durable.Options{Store: s, Log: s, CheckURL: checkURL})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var w durable.Wanted
		if json.Unmarshal([]byte(text), &w) != nil {
			return
		}
		st, _, err := r.Put(t.Context(), "a", w)
		var refusal *wire.Refusal
		switch {
		case errors.As(err, &refusal), errors.Is(err, store.ErrFutureCursor), errors.Is(err, store.ErrOutdatedCursor):
			return
		case err != nil:
			t.Fatal(err)
		}
		if w.Share != "" && st.Share != w.Share || w.Share == "" && st.Share != durable.Exclusive {
			t.Fatalf("%q became %q", w.Share, st.Share)
		}
		if h := st.Webhook; (h == nil) != (w.Webhook == nil) || h != nil && (h.URL != w.Webhook.URL || h.Secrets < 1 ||
			h.Events < 1 || h.Events > 100 || h.Requests < 1 || h.Requests > 16 || (h.NewSecret == "") != (len(w.Webhook.Secrets) > 0)) {
			t.Fatalf("%+v became %+v", w.Webhook, h)
		}
		if err := r.Drop("a"); err != nil {
			t.Fatal(err)
		}
	})
}
