package store

import "github.com/cockroachdb/pebble/v2"

// Tuned is o with other engine options.
func Tuned(o Options, tune func(*pebble.Options)) Options {
	o.tune = tune
	return o
}
