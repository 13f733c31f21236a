package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"cistern/filter"
	"cistern/verdict"
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
	asked, err := filter.Compile(d.cfg.filter())
	if err != nil {
		return err
	}
	d.seed = asked.Config()
	if d.store.Filter().Version == 0 {
		_, err := d.store.SetFilter(d.seed)
		return err
	}
	for _, o := range d.cfg.ignored(d.seed, d.store.Filter().Config()) {
		d.log.Warn("option ignored: it applies to a new store, and this store keeps its filter. "+
			"Change it with PATCH /filter on the private listener", "option", o.Option,
			"stored", o.Held)
	}
	return nil
}

// ignored returns the given options of the filter, whose values are in asked, that differ from the
// filter in force, for the log and for 'cistern status'.
func (c *Config) ignored(asked, held filter.Config) (all []verdict.Ignored) {
	if c.ReadOnly {
		return nil
	}
	for _, o := range []struct {
		name        string
		asked, held []string
	}{
		{"mode", []string{asked.Mode}, []string{held.Mode}},
		{"store", []string{asked.Store}, []string{held.Store}},
		{"signal", asked.Signals, held.Signals},
		{"collection", asked.Collections, held.Collections},
		{"exclude", asked.Excludes, held.Excludes},
	} {
		if slices.Contains(c.Given, o.name) && !slices.Equal(o.asked, o.held) {
			all = append(all, verdict.Ignored{Option: "--" + o.name + " " + some(o.asked),
				Held: some(o.held)})
		}
	}
	return all
}

// some writes the first of some values, and how many more there are.
func some(values []string) string {
	const shown = 3
	switch n := len(values); {
	case n == 0:
		return "none"
	case n > shown:
		return fmt.Sprintf("%s and %d more", strings.Join(values[:shown], ","), n-shown)
	}
	return strings.Join(values, ",")
}
