package main

import (
	"cistern/api/admin"
	"cistern/ingest/firehose"
)

// firehose returns what the private listener needs to show and control of the firehoses.
func (d *daemon) firehose() admin.Firehose {
	return admin.Firehose{
		Sources: func() []admin.Source {
			var sources []admin.Source
			for _, s := range d.sources.Status() {
				sources = append(sources, admin.Source(s))
			}
			return sources
		},
		Parse: firehose.ParseSource, Add: d.sources.Add, Remove: d.sources.Remove,
		Forget: d.sources.ForgetCursor,
	}
}
