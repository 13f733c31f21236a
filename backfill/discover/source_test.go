package discover_test

import (
	"testing"

	"cistern/backfill/discover"
	"cistern/backfill/hosts"
	"cistern/ingest/identity"
	"cistern/store"
	"cistern/store/storetest"
)

func TestSources(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	for source, ok := range map[discover.Source]bool{
		{Kind: "repos", URL: "https://relay.example"}:     true,
		{Kind: "repos", URL: "http://127.0.0.1:2583"}:     true,
		{Kind: "hosts", URL: "https://relay.example"}:     true,
		{Kind: "all", URL: "https://relay.example"}:       false, // unknown kind
		{Kind: "repos", URL: "https://Relay.example:443"}: false, // another spelling
		{Kind: "repos", URL: "relay.example"}:             false, // no scheme
		{Kind: "repos", URL: "https://relay.example/xyz"}: false, // more than an origin
		{Kind: "repos", URL: "wss://relay.example"}:       false,
	} {
		_, err := discover.New(discover.Options{Store: s, Hosts: new(hosts.Table), Directory: new(identity.Directory), Enqueued: func() {}, Crawl: []discover.Source{source}})
		if (err == nil) != ok {
			t.Errorf("%v: %v", source, err)
		}
	}
}
