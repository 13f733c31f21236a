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
	for _, o := range d.ignored() {
		d.log.Warn("option ignored: it applies to a new store, and this store keeps its filter. "+
			"Change it with PATCH /filter on the private listener", "option", o.Option,
			"stored", o.Held)
	}
	return nil
}

// ignored returns the given options of the filter that differ from the filter in force, for the log
// and for 'cistern status'.
func (d *daemon) ignored() (all []verdict.Ignored) {
	if d.cfg.ReadOnly {
		return nil
	}
	held := d.store.Filter().Config()
	for _, o := range []struct {
		name        string
		asked, held []string
	}{
		{"mode", []string{d.seed.Mode}, []string{held.Mode}},
		{"store", []string{d.seed.Store}, []string{held.Store}},
		{"signal", d.seed.Signals, held.Signals},
		{"collection", d.seed.Collections, held.Collections},
		{"exclude", d.seed.Excludes, held.Excludes},
	} {
		if slices.Contains(d.cfg.Given, o.name) && !slices.Equal(o.asked, o.held) {
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
