package lease

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"sync"
	"time"

	"cistern/loop"
	"cistern/objects"

	"golang.org/x/sync/errgroup"
)

// ErrLocked means that another user has the lock.
var ErrLocked = errors.New("the destination is in use")

const (
	// dir is the directory of locks.
	dir = "locks/"
	// LocksMax bounds the locks of a destination. The next user deletes the locks of killed ones.
	LocksMax = 1000
	// DefaultLasts is the default of Options.Lasts. A lock is renewed renewals times in its time.
	DefaultLasts = 5 * time.Minute
	renewals     = 10
	// holderBytesMax bounds the content of a lock.
	holderBytesMax = 4 << 10
)

// lockName is the name of a lock below dir.
var lockName = regexp.MustCompile(`^[A-Z2-7]{20,40}$`)

// Options are the options of With. Destination is required.
type Options struct {
	Destination objects.Destination
	// Prefix begins the names of locks: it is locked, and no other.
	Prefix string
	// What is what a user of the destination does, for errors: a backup.
	What string
	// Holder names the user, for the errors of others.
	Holder string
	// Lasts is how long a lock holds without renewal. Default DefaultLasts.
	Lasts time.Duration
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// lease is the lock of one user on its destination.
type lease struct {
	Options
	d    objects.Destination
	name string

	// mu guards:
	mu      sync.Mutex
	renewed time.Time // when the last renewal that succeeded was begun
	lost    error     // why the lock no longer holds
}

// With calls fn while it has the destination alone. held, which fn calls before each step that
// could harm another user, returns an error once the lock may have expired. The error is ErrLocked
// if another user has the lock.
func With(ctx context.Context, o Options, fn func(ctx context.Context, held func() error) error,
) (err error) {
	o.Lasts = cmp.Or(o.Lasts, DefaultLasts)
	if o.Now == nil {
		o.Now = time.Now
	}
	l := &lease{Options: o, d: o.Destination, name: o.Prefix + dir + rand.Text(), renewed: o.Now()}
	defer func() {
		// Also when ctx has ended: else the next user would wait for the lock to expire.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer cancel()
		err = errors.Join(err, l.d.Delete(ctx, l.name))
	}()
	if err := l.acquire(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var g errgroup.Group
	g.Go(func() error { return l.renew(ctx) })
	err = fn(ctx, l.held)
	cancel()
	return errors.Join(err, g.Wait())
}

// releaseTimeout bounds the deletion of a lock.
const releaseTimeout = 10 * time.Second

func (l *lease) write(ctx context.Context) error {
	return objects.PutText(ctx, l.d, l.name, []byte(l.Holder))
}

// acquire writes the lock and looks for others. Their age is measured by the clock of the
// destination, against the lock that was just written.
func (l *lease) acquire(ctx context.Context) error {
	if err := l.write(ctx); err != nil {
		return err
	}
	others, err := l.others(ctx)
	if err != nil {
		return err
	}
	for name, age := range others {
		if age < l.Lasts {
			left := (l.Lasts - age).Round(time.Second)
			return fmt.Errorf("%s: %w by another %s (%s), or that was killed: unless it renews its lock, "+
				"the lock expires in %s, at %s; try again then, or delete %s there if it was killed", l.d,
				ErrLocked, l.What, l.holderOf(ctx, name), left, l.Now().Add(left).UTC().Format(time.RFC3339),
				name)
		}
	}
	for name := range others {
		if err := l.d.Delete(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// others returns the age of each other lock. A lock dated further in the future than a lease lasts
// would hold for too long: the clock of the destination was set back, or another program wrote the
// lock. It counts as expired unless it is renewed while others waits.
func (l *lease) others(ctx context.Context) (map[string]time.Duration, error) {
	own, found, err := l.list(ctx)
	if err != nil {
		return nil, err
	}
	ahead := maps.Clone(found)
	maps.DeleteFunc(ahead, func(_ string, at time.Time) bool { return own.Sub(at) >= -l.Lasts })
	if len(ahead) > 0 {
		loop.Sleep(ctx, 2*l.Lasts/renewals, nil)
		if own, found, err = l.list(ctx); err != nil {
			return nil, err
		}
	}
	ages := map[string]time.Duration{}
	for name, at := range found {
		ages[name] = own.Sub(at)
		if was, ok := ahead[name]; ok && was.Equal(at) {
			ages[name] = l.Lasts
		}
	}
	return ages, nil
}

// list returns the times at which this lock and each other lock were written.
func (l *lease) list(ctx context.Context) (own time.Time, others map[string]time.Time, err error) {
	others = map[string]time.Time{}
	err = l.d.List(ctx, l.Prefix+dir, func(o objects.Object) error {
		switch {
		case o.Name == l.name:
			own = o.Modified
		case len(others) == LocksMax:
			return fmt.Errorf("%s has more than %d locks", l.d, LocksMax)
		case lockName.MatchString(strings.TrimPrefix(o.Name, l.Prefix+dir)):
			others[o.Name] = o.Modified
		}
		return nil
	})
	if err == nil && own.IsZero() {
		err = fmt.Errorf("%s does not list %s after it was written: it cannot be locked", l.d, l.name)
	}
	return own, others, err
}

// holderOf returns the name of the user that wrote a lock, as far as it can be read.
func (l *lease) holderOf(ctx context.Context, name string) string {
	text, err := objects.ReadAll(ctx, l.d, name, holderBytesMax)
	if err != nil {
		return name
	}
	return fmt.Sprintf("%.120q", text)
}

// renew writes the lock again until ctx ends. A failure is tried again; held notices a lasting one.
func (l *lease) renew(ctx context.Context) error {
	for {
		loop.Sleep(ctx, l.Lasts/renewals, nil)
		if ctx.Err() != nil {
			return nil
		}
		begun := l.Now()
		if l.write(ctx) == nil {
			_ = l.check(begun) // a lock that was lost stays lost, because held returns it too
		}
	}
}

// held returns an error unless the lock holds for a while yet.
func (l *lease) held() error { return l.check(time.Time{}) }

// check returns an error if the lock was not renewed for so long that another user may soon take
// it for expired, now or at any time before. It notes a renewal that began at the time begun.
func (l *lease) check(begun time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.Now()
	// The monotonic clock stands still while the machine sleeps, and the other one may be set.
	age := max(now.Sub(l.renewed), now.Round(0).Sub(l.renewed.Round(0)))
	if l.lost == nil && age > l.Lasts/2 {
		l.lost = fmt.Errorf("the lock on %s was not renewed for %s: another %s may use it; run "+
			"this one again", l.d, age.Round(time.Second), l.What)
	}
	if !begun.IsZero() {
		l.renewed = begun
	}
	return l.lost
}
