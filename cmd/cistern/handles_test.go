package main

import (
	"testing"

	"cistern/ingest/identity"

	"github.com/prometheus/client_golang/prometheus"
)

// Names are looked up unless an option says otherwise, and never by a daemon without a network.
func TestHandlesOption(t *testing.T) {
	t.Parallel()
	d, err := identity.New(identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		cfg  Config
		want bool
	}{
		{Config{Handles: "on"}, true},
		{Config{Handles: "off"}, false},
		{Config{Handles: "on", ReadOnly: true}, false},
	} {
		r, err := newNames(&c.cfg, d, prometheus.NewRegistry(), nil)
		if err != nil || (r != nil) != c.want {
			t.Errorf("%+v: %v, %v", c.cfg, r, err)
		}
	}
	cfg, err := loadArgs(t, []string{"--handles", "maybe"}, nil)
	if err == nil {
		t.Errorf("got %q", cfg.Handles)
	}
}
