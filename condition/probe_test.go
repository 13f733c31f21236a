package condition_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cistern/condition"
	"cistern/maintain"
)

func TestSystemDisk(t *testing.T) {
	t.Parallel()
	p := condition.System()
	free, total, err := p.Disk(t.TempDir())
	if err != nil || total == 0 || free > total {
		t.Errorf("%d of %d, %v", free, total, err)
	}
	if _, _, err := p.Disk("/does/not/exist"); err == nil {
		t.Error("no error for a directory that is not there")
	}
}

func TestSystemMount(t *testing.T) {
	t.Parallel()
	p, dir := condition.System(), t.TempDir()
	point, err := p.Mount(dir)
	if err != nil || !strings.HasPrefix(dir, point) {
		t.Skipf("%s is on %q: %v", dir, point, err)
	}
	for in, want := range map[string]string{"/proc": "/proc", "/proc/self": "/proc", "/": "/", filepath.Join(dir, "none"): ""} {
		if got, err := p.Mount(in); err != nil || got != want {
			t.Errorf("%s is on %q (%v), want %q", in, got, err, want)
		}
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/proc/sys", link); err != nil {
		t.Fatal(err)
	}
	if got, err := p.Mount(link); err != nil || !strings.HasPrefix(got, "/proc") {
		t.Errorf("a link to /proc/sys is on %q (%v)", got, err)
	}
}

// TestSystemPressure: each figure is one, or an error.
func TestSystemPressure(t *testing.T) {
	t.Parallel()
	p := condition.System()
	for _, of := range condition.Resources {
		if percent, err := p.Stalled(of); err == nil && (percent < 0 || percent > 100) {
			t.Errorf("%s: %f %%", of, percent)
		}
	}
	if percent, err := p.Overload(); err == nil && percent < 0 {
		t.Errorf("overload %f %%", percent)
	}
	if percent, err := p.Available(); err == nil && (percent < 0 || percent > 100) {
		t.Errorf("available %f %%", percent)
	}
}

// BenchmarkLook looks at every condition of this machine, with 100 subscriptions.
func BenchmarkLook(b *testing.B) {
	p := condition.System()
	night, err := maintain.ParseHours("22-6")
	if err != nil {
		b.Fatal(err)
	}
	backlogs := make([]condition.Backlog, 100)
	all := []condition.Condition{
		condition.Disk(p, ".", func(total uint64) uint64 { return total / 20 }), condition.Hours(night), condition.Mount(p, ".", "/"),
		condition.Lag(condition.LagLimit{Events: 1, Age: 1}, func(time.Time, bool) ([]condition.Backlog, error) { return backlogs, nil }),
	}
	for _, of := range condition.Resources {
		all = append(all, condition.Pressure(p, of, 50))
	}
	w, err := condition.New(condition.Options{Conditions: all})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := w.Look(); err != nil {
			b.Fatal(err)
		}
	}
}
