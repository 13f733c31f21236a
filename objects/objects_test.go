package objects_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"cistern/objects"
	"cistern/objects/objectstest"
)

// TestOpen reads destinations.
func TestOpen(t *testing.T) {
	t.Parallel()
	keys := []string{"AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=hunter22"}
	for _, row := range []struct {
		text    string
		environ []string
		want    string // the name, or part of the error
		err     bool
	}{
		{"/a/b/", nil, "/a/b", false},
		{"s3://b", keys, "s3://b/", false},
		{"s3://b/p/q/", keys, "s3://b/p/q", false},
		{"", nil, "is empty", true},
		{"s3://", keys, "BUCKET/PREFIX", true},
		{"s3:///p", keys, "BUCKET/PREFIX", true},
		{"s3://id:hunter22@b/p", keys, "BUCKET/PREFIX", true},
		{"gs://b", keys, `"gs"`, true},
		{"s3://b", keys[:1], "AWS_SECRET_ACCESS_KEY", true},
		{"s3://b", append(keys, "AWS_ENDPOINT_URL=host:1"), "AWS_ENDPOINT_URL", true},
		{"s3://b", append(keys, "AWS_ENDPOINT_URL=https://id:hunter22@host"), "without a user", true},
	} {
		d, err := objects.Open(row.text, row.environ)
		switch {
		case err == nil && (row.err || d.String() != row.want):
			t.Errorf("%q is %s", row.text, d)
		case err != nil && (!row.err || !strings.Contains(err.Error(), row.want)):
			t.Errorf("%q: %v, want %q", row.text, err, row.want)
		case err != nil && strings.Contains(err.Error(), "hunter22"):
			t.Errorf("%q: the error has the secret: %v", row.text, err)
		}
	}
}

// TestPutChecks: a destination refuses content that is not what it is named by.
func TestPutChecks(t *testing.T) {
	t.Parallel()
	objectstest.Each(t, func(t *testing.T, at objects.Destination) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if err := objects.PutText(ctx, at, "tables/a", []byte("old")); err != nil {
			t.Fatal(err)
		}
		err := at.Put(ctx, "tables/a", objects.Content{Reader: strings.NewReader("new"), Size: 3, Sum: sha256.Sum256([]byte("neu"))})
		if err == nil {
			t.Error("content with another sum is stored")
		}
		if b, err := objects.ReadAll(ctx, at, "tables/a", 10); err != nil || string(b) != "old" {
			t.Errorf("the object is %q now, %v", b, err)
		}
	})
}

// TestGetRange reads parts of an object, and parts that it does not have.
func TestGetRange(t *testing.T) {
	t.Parallel()
	objectstest.Each(t, func(t *testing.T, at objects.Destination) {
		ctx := t.Context()
		if err := objects.PutText(ctx, at, "log/a/b", []byte("0123456789")); err != nil {
			t.Fatal(err)
		}
		for _, row := range []struct {
			at, n int64
			want  string
			err   error
		}{
			{0, 10, "0123456789", nil},
			{3, 4, "3456", nil},
			{9, 1, "9", nil},
			{8, 3, "", objects.ErrDamaged},  // ends in between
			{10, 1, "", objects.ErrDamaged}, // begins behind the end
			{50, 5, "", objects.ErrDamaged},
		} {
			b, err := at.GetRange(ctx, "log/a/b", row.at, row.n)
			if string(b) != row.want || !errors.Is(err, row.err) {
				t.Errorf("%d bytes from %d: %q, %v", row.n, row.at, b, err)
			}
		}
		if _, err := at.GetRange(ctx, "log/a/c", 0, 1); !errors.Is(err, objects.ErrNotFound) {
			t.Errorf("a missing object: %v", err)
		}
	})
}
