package hosts

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestCounted: every byte that is read is told of, and an error of the count ends the body.
func TestCounted(t *testing.T) {
	t.Parallel()
	told, broken := 0, errors.New("no more")
	table := &Table{opts: Options{Receive: func(_ context.Context, n int) error {
		if told += n; told > 5000 {
			return broken
		}
		return nil
	}}}
	for _, c := range []struct {
		length int
		want   error
	}{{0, nil}, {4000, nil}, {1000, nil}, {1, broken}} {
		body := table.counted(t.Context(), io.NopCloser(strings.NewReader(strings.Repeat("x", c.length))))
		if text, err := io.ReadAll(body); !errors.Is(err, c.want) || len(text) != c.length {
			t.Errorf("%d of %d bytes, %v", len(text), c.length, err)
		}
	}
	if told != 5001 {
		t.Errorf("told of %d bytes", told)
	}
}
