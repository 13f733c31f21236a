package backup

import (
	"context"
	"fmt"
	"strings"

	"cistern/objects"
)

// prune deletes the generations before the newest keep ones, what interrupted backups have left,
// and then the tables that no generation names. keep 0 keeps everything. It runs under the lock, so
// that no backup in progress counts on a table that it deletes. An interruption leaves tables that
// no generation names, which the next prune deletes.
func prune(ctx context.Context, d objects.Destination, keep int, held func() error) (deleted int, err error) {
	if keep == 0 {
		return 0, nil
	}
	all, err := List(ctx, d)
	if err != nil {
		return 0, err
	}
	old := all[:max(0, len(all)-keep)]
	kept := map[string]bool{}
	named := map[string]bool{}
	for _, g := range all[len(old):] {
		m, err := ReadManifest(ctx, d, g)
		if err != nil { // which tables it needs is not known
			return 0, fmt.Errorf("nothing is deleted: %w", err)
		}
		kept[g.Name] = true
		for _, f := range m.Files {
			named[tableName(f.Sum)] = true
		}
	}
	remove := func(name string) error {
		if err := held(); err != nil {
			return err
		}
		return d.Delete(ctx, name)
	}
	// The marker goes first: a generation that lacks a part must not exist.
	for _, g := range old {
		if err := remove(objectOf(g.Name, completeName)); err != nil {
			return deleted, err
		}
		deleted++
	}
	names, err := superfluous(ctx, d, kept, named)
	if err != nil {
		return deleted, err
	}
	for _, name := range names {
		if err := remove(name); err != nil {
			return deleted, err
		}
	}
	return deleted, nil
}

// superfluous lists the objects of generations that are not kept, and tables that are not named.
func superfluous(ctx context.Context, d objects.Destination, kept, named map[string]bool) ([]string, error) {
	var names []string
	add := func(name string) error {
		if len(names) == listedMax {
			return fmt.Errorf("%s has more than %d superfluous objects", d, listedMax)
		}
		names = append(names, name)
		return nil
	}
	err := d.List(ctx, generationsDir+"/", func(o objects.Object) error {
		name, _, _ := strings.Cut(strings.TrimPrefix(o.Name, generationsDir+"/"), "/")
		if kept[name] {
			return nil
		}
		return add(o.Name)
	})
	if err != nil {
		return nil, err
	}
	err = d.List(ctx, tablesDir+"/", func(o objects.Object) error {
		if named[o.Name] {
			return nil
		}
		return add(o.Name)
	})
	return names, err
}
