package main

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"cistern/filter"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

func (c *Config) setMode(s string) error {
	var mode string
	err := setChoice(&mode, filter.ModeFilter, filter.ModeFull)(s)
	c.Full = mode == filter.ModeFull
	return err
}

// appendPattern adds a collection, or all that begin so.
func appendPattern(field *[]string) func(string) error {
	return func(s string) error {
		if _, err := filter.Compile(filter.Config{Collections: []string{s}}); err != nil {
			return errors.New("want a collection like app.bsky.feed.post, or all below a dot like app.bsky.*")
		}
		*field = append(*field, s)
		return nil
	}
}

func appendDID(field *[]string) func(string) error {
	return func(s string) error {
		if _, err := syntax.ParseDID(s); err != nil {
			return errors.New("want a DID like did:plc:ewvi7nxzyoun6zhxrhs64oiz")
		}
		*field = append(*field, s)
		return nil
	}
}

// filter is what a new store begins with.
func (c *Config) filter() filter.Config {
	f := filter.Config{Mode: filter.ModeFilter, Store: cmp.Or(c.Store, filter.StoreWanted), Signals: c.Signals, Collections: c.Collections, Excludes: c.Excludes}
	if c.Full {
		f.Mode = filter.ModeFull
	}
	return f
}

// seedFilter puts the filter of the options in force in a new store. Any other keeps its own, which may have been
// changed while it ran; options that say something else are told of.
func (d *daemon) seedFilter() error {
	held := d.store.Filter()
	if held.Version == 0 {
		_, err := d.store.SetFilter(d.cfg.filter())
		return err
	}
	asked, err := filter.Compile(d.cfg.filter())
	if err != nil {
		return err
	}
	if ignored := ignoredSeeds(d.cfg.Seeds, asked.Config(), held.Config()); len(ignored) > 0 {
		d.log.Warn("the filter that the store holds stays in force: options are for new stores. PATCH /filter on the private listener changes it, GET shows it",
			"ignored", strings.Join(ignored, " "), "version", held.Version, "mode", held.Config().Mode)
	}
	return nil
}

// ignoredSeeds are the options given that say something else than the filter held.
func ignoredSeeds(given []string, asked, held filter.Config) []string {
	same := map[string]bool{
		"mode": asked.Mode == held.Mode, "store": asked.Store == held.Store, "signal": slices.Equal(asked.Signals, held.Signals),
		"collection": slices.Equal(asked.Collections, held.Collections), "exclude": slices.Equal(asked.Excludes, held.Excludes),
	}
	var out []string
	for _, name := range given {
		if !same[name] {
			out = append(out, "--"+name)
		}
	}
	return out
}
