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
func prune(
	ctx context.Context, d objects.Destination, keep int, held func() error,
) (deleted int, err error) {
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
		if len(named) > namedMax {
			return 0, fmt.Errorf("nothing is deleted: %w", errNamed)
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

// errNamed refuses generations that name more files than any store has.
var errNamed = fmt.Errorf("the generations name more than %d different files", namedMax)

// superfluous lists the objects of generations that are not kept, and tables that are not named. It
// leaves out objects with other names than backups write.
func superfluous(
	ctx context.Context, d objects.Destination, kept, named map[string]bool,
) ([]string, error) {
	var names []string
	err := d.List(ctx, generationsDir+"/", func(o objects.Object) error {
		generation, name, _ := strings.Cut(strings.TrimPrefix(o.Name, generationsDir+"/"), "/")
		name = strings.TrimSuffix(name, objects.PartSuffix)
		if !kept[generation] && generationNames.MatchString(generation) &&
			(name == manifestName || name == completeName) {
			names = append(names, o.Name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = d.List(ctx, tablesDir+"/", func(o objects.Object) error {
		sum := strings.TrimSuffix(strings.TrimPrefix(o.Name, tablesDir+"/"), objects.PartSuffix)
		if _, err := objects.ParseSum(sum); err == nil && !named[o.Name] {
			names = append(names, o.Name)
		}
		return nil
	})
	return names, err
}
