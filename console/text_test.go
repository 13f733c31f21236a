package console

import "testing"

func TestText(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 hosts", 1: "1 host", 1234567: "1,234,567 hosts"} {
		if got := Count(n, "host"); got != want {
			t.Errorf("Count(%d) = %s", n, got)
		}
	}
	if got := Count(2, "repository"); got != "2 repositories" {
		t.Error(got)
	}
	for _, row := range []struct {
		text    string
		columns int
		want    string
	}{{"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"青空青空", 8, "青空青空"}, {"青空青空", 7, "青空青…"}, {"青空青空", 6, "青空…"}, {"e\u0301e\u0301", 2, "e\u0301e\u0301"}, {"abc", 0, "…"}} {
		if got := Clip(row.text, row.columns); got != row.want {
			t.Errorf("Clip(%q, %d) = %q, want %q", row.text, row.columns, got, row.want)
		}
	}
	if got := Printable("a\x1b[2Jb\u202ec\n"); got != "a·[2Jb·c·" {
		t.Errorf("Printable: %q", got)
	}
}
