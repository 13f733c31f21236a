// Package objectstest makes destinations for tests.
package objectstest

import (
	"io"
	"log"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"cistern/objects"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// Directory returns a destination in a new directory, and its path.
func Directory(t testing.TB) (d objects.Destination, root string) {
	t.Helper()
	root = filepath.Join(t.TempDir(), "a", "objects")
	return objects.NewDirectory(root), root
}

// Bucket returns a destination in a new bucket of a server in this process. The options change the
// server, and the bucket's memory is mem unless that is nil.
func Bucket(t testing.TB, mem *s3mem.Backend, options ...gofakes3.Option) objects.Destination {
	t.Helper()
	if mem == nil {
		mem = s3mem.New()
	}
	if err := mem.CreateBucket("bucket"); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(gofakes3.New(mem, options...).Server())
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // it answers torn requests twice
	srv.Start()
	t.Cleanup(srv.Close)
	d, err := objects.Open("s3://bucket/some/prefix", []string{"AWS_ACCESS_KEY_ID=id",
		"AWS_SECRET_ACCESS_KEY=secret", "AWS_ENDPOINT_URL=" + srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Each runs a test with a directory and with a bucket.
func Each(t *testing.T, test func(t *testing.T, d objects.Destination)) {
	t.Helper()
	t.Run("directory", func(t *testing.T) {
		t.Parallel()
		d, _ := Directory(t)
		test(t, d)
	})
	t.Run("s3", func(t *testing.T) {
		t.Parallel()
		test(t, Bucket(t, nil))
	})
}
