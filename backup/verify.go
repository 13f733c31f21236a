package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"cistern/objects"

	"golang.org/x/sync/errgroup"
)

// Verify reads every file of generations, each content once, and calls report for each one that is
// missing or damaged. It returns how many there are.
func Verify(
	ctx context.Context, d objects.Destination, generations []Generation, progress func(Progress),
	report func(error),
) (bad int, err error) {
	v := &verification{d: d, report: report, progressed: progress}
	type content struct {
		sum  string
		size int64
	}
	files, of := map[content]File{}, map[content]string{}
	for _, g := range generations {
		m, err := ReadManifest(ctx, d, g)
		if errors.Is(err, objects.ErrDamaged) {
			v.found(err)
			continue
		}
		if err != nil {
			return v.bad, err
		}
		for _, f := range m.Files {
			c := content{f.Sum, f.Size}
			if files[c].Sum == "" {
				v.progress.BytesTotal += f.Size
			}
			files[c], of[c] = f, g.Name
		}
		if len(files) > namedMax {
			return v.bad, errNamed
		}
	}
	v.progress.FilesTotal = len(files)
	work, filesCtx := errgroup.WithContext(ctx)
	work.SetLimit(transfers)
	for c, f := range files {
		work.Go(func() error { return v.file(filesCtx, f, of[c]) })
	}
	err = work.Wait()
	return v.bad, err
}

// verification reads files.
type verification struct {
	d objects.Destination

	// mu guards:
	mu         sync.Mutex
	bad        int
	progress   Progress
	progressed func(Progress)
	report     func(error)
}

func (v *verification) found(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.bad++
	v.report(err)
}

func (v *verification) file(ctx context.Context, f File, generation string) error {
	v.mu.Lock()
	v.progress.begin(f)
	v.progressed(v.progress)
	v.mu.Unlock()
	err := readFile(ctx, v.d, f, io.Discard)
	switch {
	case errors.Is(err, objects.ErrDamaged):
		v.found(fmt.Errorf("%w (of generation %s)", err, generation))
	case err != nil:
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.progress.Files++
	v.progress.Bytes += f.Size
	v.progressed(v.progress)
	return nil
}

// readFile writes the content of a file to w. It returns ErrDamaged if the destination does not
// have it, or has something else.
func readFile(ctx context.Context, d objects.Destination, f File, w io.Writer) error {
	sum, err := objects.ParseSum(f.Sum)
	if err != nil {
		return err
	}
	named := func(err error) error { return fmt.Errorf("%s (%s): %w", tableName(f.Sum), f.Name, err) }
	body, err := d.Get(ctx, tableName(f.Sum))
	if errors.Is(err, objects.ErrNotFound) {
		return named(fmt.Errorf("%w: it is missing", objects.ErrDamaged))
	}
	if err != nil {
		return named(err)
	}
	r := objects.NewChecked(ctx, body)
	_, err = io.Copy(w, io.LimitReader(r, f.Size+1))
	if err := errors.Join(err, body.Close()); err != nil {
		return named(err)
	}
	if err := r.Is(f.Size, sum); err != nil {
		return named(err)
	}
	return nil
}
