package main

import (
	"cistern/api"
	"cistern/ingest"
)

// firehose returns what the private listener needs to show and control ingest.
func (d *daemon) firehose() api.Firehose {
	return api.Firehose{
		Sources: func() []api.Source {
			var sources []api.Source
			for _, s := range d.ingest.Sources() {
				sources = append(sources, api.Source(s))
			}
			return sources
		},
		Parse: ingest.ParseSource, Add: d.ingest.AddSource, Remove: d.ingest.RemoveSource,
		Forget: d.ingest.ForgetCursor,
	}
}
