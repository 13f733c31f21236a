package backup_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/backup"
	"cistern/objects"
	"cistern/objects/lease"
)

func sum(b []byte) objects.Sum { return sha256.Sum256(b) }

// stopped is a destination that waits at the first table.
type stopped struct {
	objects.Destination
	once             sync.Once
	reached, goahead chan struct{}
}

func (d *stopped) Put(ctx context.Context, name string, c objects.Content) error {
	if strings.HasPrefix(name, "tables/") {
		d.once.Do(func() {
			close(d.reached)
			<-d.goahead
		})
	}
	return d.Destination.Put(ctx, name, c)
}

// wayOn is what the error of a locked destination says about when and how to go on.
var wayOn = regexp.MustCompile(`expires in [0-9hms]+, at 20[-0-9]+T[:0-9]+Z; try again then, or delete locks/[A-Z0-9]+ `)

// TestOneAtATime: while a backup runs, another one is refused. If the first one stands still until
// its lock has expired, the other one runs, and the first one is not completed.
func TestOneAtATime(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, at place) {
		m := newMade(t, seeded(t))
		m.next()
		clock := new(shifted)
		slow := &stopped{Destination: at, reached: make(chan struct{}), goahead: make(chan struct{})}
		ended := make(chan error, 1)
		go func() {
			_, err := backup.Run(context.WithoutCancel(t.Context()), backup.Options{Destination: slow, Source: m.src,
				Now: clock.Now, Holder: "first on somewhere", Lease: time.Hour})
			ended <- err
		}()
		<-slow.reached
		o := backup.Options{Destination: at, Source: m.src, Keep: 1, Lease: time.Hour}
		if _, err := backup.Run(t.Context(), o); !errors.Is(err, lease.ErrLocked) ||
			!strings.Contains(err.Error(), "first on somewhere") || !wayOn.MatchString(err.Error()) {
			t.Errorf("a second backup: %v", err)
		}
		at.age(61 * time.Minute)
		clock.set(61 * time.Minute)
		mustRun(t, o)
		close(slow.goahead)
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "not renewed") {
			t.Errorf("the backup that lost its lock: %v", err)
		}
		if names := verified(t, at); len(names) != 1 {
			t.Errorf("generations %v", names)
		}
	})
}

// TestLocksExclude: of backups that begin at the same time, at most one at a time has the
// destination.
func TestLocksExclude(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, at place) {
		m := newMade(t, seeded(t))
		m.next()
		var all sync.WaitGroup
		var mu sync.Mutex
		var running, ran int
		for range 8 {
			all.Go(func() {
				for range 5 {
					_, err := backup.Run(t.Context(), backup.Options{Destination: &watched{Destination: at, tell: func(by int) {
						mu.Lock()
						defer mu.Unlock()
						if running += by; running > 1 {
							t.Errorf("%d backups at a time", running)
						}
						ran += max(by, 0)
					}}, Source: m.src})
					if err != nil && !errors.Is(err, lease.ErrLocked) {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		t.Logf("%d of 40 ran", ran)
		verified(t, at)
	})
}

// watched tells when a backup begins and ends to have the destination. With its lock it first lists
// the generations, and last deletes the lock.
type watched struct {
	objects.Destination
	tell func(by int)
	once sync.Once
	has  bool
}

func (d *watched) List(ctx context.Context, prefix string, fn func(objects.Object) error) error {
	if prefix == "generations/" {
		d.once.Do(func() { d.has = true; d.tell(1) })
	}
	return d.Destination.List(ctx, prefix, fn)
}

func (d *watched) Delete(ctx context.Context, name string) error {
	if d.has && strings.HasPrefix(name, "locks/") {
		d.tell(-1)
	}
	return d.Destination.Delete(ctx, name)
}
