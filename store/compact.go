package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// Compact rewrites all tables, so that deleted rows no longer take space on disk, one keyspace at a
// time. The engine does that by itself little by little; Compact takes as much free space as the
// largest keyspace for as long as it runs. It calls progress before each keyspace. When ctx ends it
// stops, and a later call begins anew, where tables that were rewritten cost little.
func (s *Store) Compact(ctx context.Context, progress func(space string, done, total int)) error {
	if err := s.usable(); err != nil {
		return err
	}
	all := slices.Sorted(maps.Keys(spaceNames))
	for i, space := range all {
		progress(spaceNames[space], i, len(all))
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.db.Compact(ctx, []byte{space}, spaceEnd(space), false); err != nil {
			return fmt.Errorf("compact %s: %w", spaceNames[space], engineError(err))
		}
	}
	return nil
}
