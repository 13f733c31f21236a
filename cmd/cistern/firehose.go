package main

import (
	"cistern/api"
	"cistern/ingest/firehose"
)

// firehose returns what the private listener needs to show and control of the firehoses.
func (d *daemon) firehose() api.Firehose {
	return api.Firehose{
		Sources: func() []api.Source {
			var sources []api.Source
			for _, s := range d.sources.Status() {
				sources = append(sources, api.Source(s))
			}
			return sources
		},
		Parse: firehose.ParseSource, Add: d.sources.Add, Remove: d.sources.Remove,
		Forget: d.sources.ForgetCursor,
	}
}
