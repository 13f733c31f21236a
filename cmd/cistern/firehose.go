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
				sources = append(sources, apiSource(s))
			}
			return sources
		},
		Parse: ingest.ParseSource, Add: d.ingest.AddSource, Remove: d.ingest.RemoveSource, Forget: d.ingest.ForgetCursor,
	}
}

func apiSource(s ingest.SourceStatus) api.Source {
	return api.Source{
		URL: s.URL, PDS: s.PDS, Named: s.Named, Direct: s.Direct, Persisted: s.Persisted, Running: s.Running, Failures: s.Failures, RetryIn: s.RetryIn,
		Failure: api.SourceFailure{At: s.LastFailure.At, Kind: s.LastFailure.Kind, Detail: s.LastFailure.Detail},
		Cursor:  s.Cursor, Seq: s.Seq, Events: s.Events, Bytes: s.Bytes, BadFrames: s.Bad, Refused: s.Refused,
		LastEvent: s.LastEvent, Lag: s.Lag,
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
