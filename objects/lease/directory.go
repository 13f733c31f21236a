package lease

import (
	"context"
	"errors"
	"fmt"

	"cistern/objects"
)

// locker is a destination whose files can be locked, as those of a directory can.
type locker interface {
	// Lock locks a file until release is called or the process ends. The error is objects.ErrInUse if
	// another user has it.
	Lock(name string) (release func() error, err error)
}

// lockFile is the name of the file that is locked in a directory, behind the prefix.
const lockFile = "locked"

// Alone is With, but that it locks a file of a directory, which holds until the process ends, and
// needs no renewal.
func Alone(
	ctx context.Context, o Options, fn func(ctx context.Context, held func() error) error,
) (err error) {
	d, ok := o.Destination.(locker)
	if !ok {
		return With(ctx, o, fn)
	}
	release, err := d.Lock(o.Prefix + lockFile)
	if errors.Is(err, objects.ErrInUse) {
		return fmt.Errorf("%s: %w by another %s", o.Destination, ErrLocked, o.What)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	return fn(ctx, func() error { return nil })
}
