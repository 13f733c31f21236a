package store

import "github.com/cockroachdb/pebble/v2"

// Tuned returns o with other engine options.
func Tuned(o Options, tune func(*pebble.Options)) Options {
	o.tune = tune
	return o
}
