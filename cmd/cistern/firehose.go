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

// ingestion returns the switches that pause each way in which data arrives.
func (d *daemon) ingestion() api.Ingestion {
	return api.Ingestion{
		Crawler:  toggle(d.backfill.CrawlPaused, d.backfill.SetCrawlPaused),
		Firehose: toggle(d.ingest.Paused, d.ingest.SetPaused),
		Backfill: toggle(d.backfill.Paused, d.backfill.SetPaused),
	}
}

// toggle returns a switch that is on while something is not paused.
func toggle(paused func() bool, setPaused func(bool)) api.Switch {
	return api.Switch{On: func() bool { return !paused() }, Set: func(on bool) { setPaused(!on) }}
}
