package objects_test

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cistern/objects"
)

// hostile returns the bucket of a service that answers by a handler, with narrow limits.
func hostile(t *testing.T, serve http.HandlerFunc) objects.Destination {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner, end := context.WithCancel(r.Context()) // which does not end while a body is unread
		defer end()
		defer context.AfterFunc(ctx, end)()
		serve(w, r.WithContext(inner))
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(cancel)
	d, err := objects.Open("s3://bucket/some", []string{"AWS_ACCESS_KEY_ID=id",
		"AWS_SECRET_ACCESS_KEY=secret", "AWS_ENDPOINT_URL=" + srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	objects.Narrow(d, 100*time.Millisecond, 5000, 20)
	return d
}

// TestHangs: every request to a service that hangs, or sends ever less, ends with an error that
// says so.
func TestHangs(t *testing.T) {
	t.Parallel()
	hang := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	head := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000000000000000")
		w.Header().Set("Content-Range", "bytes 0-9/10")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write([]byte("some"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	drip := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Range", "bytes 0-9/10")
		for r.Context().Err() == nil {
			_, _ = w.Write([]byte("."))
			_ = http.NewResponseController(w).Flush()
			time.Sleep(time.Millisecond)
		}
	}
	big := make([]byte, 32<<20)
	for name, row := range map[string]struct {
		serve http.HandlerFunc
		do    func(ctx context.Context, d objects.Destination) error
	}{
		"get": {hang, func(ctx context.Context, d objects.Destination) error { _, err := d.Get(ctx, "a"); return err }},
		"put": {hang, func(ctx context.Context, d objects.Destination) error {
			return objects.PutText(ctx, d, "a", []byte("x"))
		}},
		"the body of a put": {hang, func(ctx context.Context, d objects.Destination) error {
			return objects.PutText(ctx, d, "a", big)
		}},
		"delete": {hang, func(ctx context.Context, d objects.Destination) error { return d.Delete(ctx, "a") }},
		"list": {hang, func(ctx context.Context, d objects.Destination) error {
			return d.List(ctx, "a", func(objects.Object) error { return nil })
		}},
		"a page": {drip, func(ctx context.Context, d objects.Destination) error {
			return d.List(ctx, "a", func(objects.Object) error { return nil })
		}},
		"the body of a get": {head, func(ctx context.Context, d objects.Destination) error {
			_, err := objects.ReadAll(ctx, d, "a", 1<<20)
			return err
		}},
		"the body of a part": {head, func(ctx context.Context, d objects.Destination) error {
			_, err := d.GetRange(ctx, "a", 0, 10)
			return err
		}},
		"a slow body": {drip, func(ctx context.Context, d objects.Destination) error {
			_, err := objects.ReadAll(ctx, d, "a", 1<<20)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := row.do(t.Context(), hostile(t, row.serve))
			if err == nil || !strings.Contains(err.Error(), "hangs, or transfers less than") {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestHangEndsWithContext: a request to a service that hangs ends with its context, and not as if
// the service was slow.
func TestHangEndsWithContext(t *testing.T) {
	t.Parallel()
	reached := make(chan struct{}, 10)
	d := hostile(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write([]byte("some"))
		_ = http.NewResponseController(w).Flush()
		reached <- struct{}{}
		<-r.Context().Done()
	})
	objects.Narrow(d, time.Hour, 1, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-reached
		cancel()
	}()
	if _, err := objects.ReadAll(ctx, d, "a", 1000); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// page writes a page of a listing.
func page(w io.Writer, more, token string, names ...string) {
	fmt.Fprintf(w, "<ListBucketResult><IsTruncated>%s</IsTruncated><NextContinuationToken>%s</NextContinuationToken>", more, token)
	for _, name := range names {
		fmt.Fprintf(w, "<Contents><Key>%s</Key><Size>1</Size><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>", name)
	}
	fmt.Fprint(w, "</ListBucketResult>")
}

// TestHostileListings: a listing that does not end, or whose names or pages are too long, ends with an
// error, after a bounded number of requests and bytes.
func TestHostileListings(t *testing.T) {
	t.Parallel()
	var requests, sent [8]atomic.Int64
	thousand := make([]string, 1000)
	for i := range thousand {
		thousand[i] = fmt.Sprintf("some/tables/%064d", i)
	}
	for i, row := range []struct {
		what  string
		page  func(w io.Writer, n int64)
		want  string
		names int // at most
	}{
		{"the same page again", func(w io.Writer, n int64) { page(w, "true", "t", thousand[:5]...) }, "names no next one", 10},
		{"a page without a successor", func(w io.Writer, n int64) { page(w, "true", "", thousand[:5]...) }, "names no next one", 5},
		{"empty pages", func(w io.Writer, n int64) { page(w, "true", fmt.Sprint(n)) }, "more than 20 pages", 0},
		{"too many names", func(w io.Writer, n int64) { page(w, "true", fmt.Sprint(n), thousand...) }, "more than 5000 names", 5000},
		{"names of others", func(w io.Writer, n int64) {
			page(w, "false", "", "", "some", "/etc/passwd", "other/tables/x", "some/table", "some/tables/")
		}, "", 1},
		{"a long name", func(w io.Writer, n int64) { page(w, "false", "", "some/tables/"+strings.Repeat("x", 2000)) }, "has 2007 bytes", 0},
		{"an endless page", func(w io.Writer, n int64) {
			page(w, "false", "", "some/tables/a"+strings.Repeat(strings.Repeat("x", 1<<10), 100<<10))
		}, "the answer has more than", 0},
		{"no XML", func(w io.Writer, n int64) { fmt.Fprint(w, "{}\x1b[2J") }, "list tables/ in s3://bucket/some", 0},
	} {
		t.Run(row.what, func(t *testing.T) {
			t.Parallel()
			d := hostile(t, func(w http.ResponseWriter, r *http.Request) {
				n := requests[i].Add(1)
				row.page(writer(func(b []byte) (int, error) {
					n, err := w.Write(b)
					sent[i].Add(int64(n))
					return n, err
				}), n)
			})
			objects.Narrow(d, time.Hour, 5000, 20)
			names := 0
			err := d.List(t.Context(), "tables/", func(objects.Object) error { names++; return nil })
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("%v, want %q", err, row.want)
			}
			if err != nil && (len(err.Error()) > 1000 || strings.Contains(err.Error(), "\x1b")) {
				t.Errorf("the error has %d bytes: %.1000q", len(err.Error()), err)
			}
			if names > row.names || requests[i].Load() > 20 || sent[i].Load() > 8*objects.AnswerBytesMax {
				t.Errorf("%d names, %d requests, %d bytes", names, requests[i].Load(), sent[i].Load())
			}
		})
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

// TestHostileAnswers: an error of a service is shown shortened and printable, its redirects are not
// followed, and what it compresses is not expanded.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	t.Run("error", func(t *testing.T) {
		t.Parallel()
		d := hostile(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, "<Error><Code>Bad</Code><Message>\u202e&#10;%s</Message></Error>", strings.Repeat("x", 1<<20))
		})
		objects.Narrow(d, time.Hour, 1, 1)
		for what, err := range map[string]error{
			"get":    func() error { _, err := d.Get(t.Context(), "a"); return err }(),
			"part":   func() error { _, err := d.GetRange(t.Context(), "a", 1, 1); return err }(),
			"put":    objects.PutText(t.Context(), d, "a", []byte("x")),
			"list":   d.List(t.Context(), "a", func(objects.Object) error { return nil }),
			"delete": d.Delete(t.Context(), "a"),
		} {
			if err == nil || !strings.Contains(err.Error(), "Bad") || len(err.Error()) > objects.ErrorTextMax+200 ||
				strings.ContainsAny(err.Error(), "\u202e\n") {
				t.Errorf("%s: %.1000q", what, err)
			}
		}
	})
	t.Run("redirect", func(t *testing.T) {
		t.Parallel()
		var asked atomic.Int64
		other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
		defer other.Close()
		for _, status := range []int{301, 302, 303, 307, 308} {
			d := hostile(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL+"/secret", status) })
			objects.Narrow(d, time.Hour, 1, 1)
			_, err := d.Get(t.Context(), "a")
			perr := objects.PutText(t.Context(), d, "a", []byte("x"))
			lerr := d.List(t.Context(), "a", func(objects.Object) error { return nil })
			if err == nil || perr == nil || lerr == nil || asked.Load() > 0 {
				t.Errorf("%d: %v, %v, %v, %d requests to the other service", status, err, perr, lerr, asked.Load())
			}
		}
	})
	t.Run("compressed", func(t *testing.T) {
		t.Parallel()
		d := hostile(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write(make([]byte, 1<<20))
			_ = z.Close()
		})
		objects.Narrow(d, time.Hour, 1, 1)
		b, err := objects.ReadAll(t.Context(), d, "a", 1<<30)
		if err != nil || len(b) >= 1<<20 {
			t.Errorf("%d bytes, %v", len(b), err)
		}
	})
	t.Run("endless object", func(t *testing.T) {
		t.Parallel()
		d := hostile(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, endless{}) })
		objects.Narrow(d, time.Hour, 1, 1)
		if _, err := objects.ReadAll(t.Context(), d, "a", 1000); !errors.Is(err, objects.ErrDamaged) {
			t.Errorf("%v", err)
		}
		if _, err := d.GetRange(t.Context(), "a", 0, 10); err == nil || !strings.Contains(err.Error(), "does not serve parts") {
			t.Errorf("a part: %v", err)
		}
		sum := objects.Sum(sha256.Sum256(nil))
		if err := d.Put(t.Context(), "a", objects.Content{Reader: strings.NewReader("more"), Sum: sum}); err == nil {
			t.Error("an object that is longer than it was is stored")
		}
	})
}
