package maintain_test

import (
	"testing"
	"time"

	"cistern/maintain"
)

func TestParseHours(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"22-6": "22:00-06:00", "22:30-06:00": "22:30-06:00", "0-24": "00:00-24:00", "8 - 9:05": "08:00-09:05", "22-0": "22:00-00:00",
		"": "", "22": "", "6-6": "", "0-0": "", "24-6": "", "22-25": "", "22:60-6": "", "22:5-6": "", "-6": "", "a-b": "", "22-6-7": "", "22-+6": "",
	} {
		h, err := maintain.ParseHours(text)
		if err != nil != (want == "") || err == nil && h.String() != want || err != nil && h != (maintain.Hours{}) {
			t.Errorf("%q: %s, %v; want %q", text, h, err, want)
		}
	}
	all, _ := maintain.ParseHours("0-24")
	if !all.Contain(time.Date(2026, 5, 1, 23, 59, 59, 999, time.UTC)) {
		t.Error("the whole day ends early")
	}
}
