package main

import (
	"cmp"
	"slices"
	"strings"

	"cistern/filter"
)

// filter returns the filter that a new store starts with.
func (c *Config) filter() filter.Config {
	return filter.Config{
		Mode: cmp.Or(c.Mode, filter.ModeFilter), Store: cmp.Or(c.Store, filter.StoreWanted),
		Signals: c.Signals, Collections: c.Collections, Excludes: c.Excludes,
	}
}

// seedFilter puts the filter of the options in force in a new store. An old store keeps its own
// filter, which the operator may have changed since; options that differ from it are logged.
func (d *daemon) seedFilter() error {
	if d.cfg.ReadOnly {
		return nil
	}
	held := d.store.Filter()
	if held.Version == 0 {
		_, err := d.store.SetFilter(d.cfg.filter())
		return err
	}
	asked, err := filter.Compile(d.cfg.filter())
	if err != nil {
		return err
	}
	if ignored := ignoredSeeds(d.cfg.Given, asked.Config(), held.Config()); len(ignored) > 0 {
		d.log.Warn("filter options ignored: they apply to new stores, and this store keeps its "+
			"filter. Change it with PATCH /filter on the private listener", "ignored",
			strings.Join(ignored, " "), "version", held.Version, "mode", held.Config().Mode)
	}
	return nil
}

// ignoredSeeds returns the given options of the filter that differ from the filter held.
func ignoredSeeds(given []string, asked, held filter.Config) (ignored []string) {
	differs := map[string]bool{
		"mode": asked.Mode != held.Mode, "store": asked.Store != held.Store,
		"signal":     !slices.Equal(asked.Signals, held.Signals),
		"collection": !slices.Equal(asked.Collections, held.Collections),
		"exclude":    !slices.Equal(asked.Excludes, held.Excludes),
	}
	for _, name := range given {
		if differs[name] {
			ignored = append(ignored, "--"+name)
		}
	}
	return ignored
}
