package ingest_test

import (
	"strings"
	"testing"

	"cistern/ingest"
)

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	_, err := ingest.New(ingest.Options{Shards: -1, Lookups: -1, RefetchBase: -1, RefuseFor: -1})
	if err == nil {
		t.Fatal("New took everything")
	}
	for _, word := range []string{"store", "directory", "firehose", "shards", "lookups", "refetch base", "refusal time"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("nothing about %q: %v", word, err)
		}
	}
}
