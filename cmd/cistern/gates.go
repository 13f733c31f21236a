package main

import (
	"log/slog"

	"cistern/api/admin"
	"cistern/gate"
)

// gates pause the parts of the daemon that bring data in, webhooks, and the backlinks index.
type gates struct{ backfill, crawler, firehose, webhooks, links gate.Gate }

// byOperator is the cause of PATCH /ingestion.
var byOperator = gate.Cause{Name: "operator", Reason: "switched off by PATCH /ingestion"}

// ingestion returns the switches of the parts.
func (g *gates) ingestion(log *slog.Logger) admin.Ingestion {
	part := func(name string, g *gate.Gate) admin.Switch {
		return admin.Switch{
			On: func() bool { return !g.ShutBy(byOperator.Name) },
			Set: func(on bool) {
				if on == !g.ShutBy(byOperator.Name) {
					return
				}
				if on {
					g.Open(byOperator.Name)
				} else {
					g.Shut(byOperator)
				}
				log.Info("a part of ingestion was switched", "part", name, "on", on)
			},
			Paused: func() (reasons []string) {
				for _, c := range g.Causes() {
					reasons = append(reasons, c.Reason)
				}
				return reasons
			},
		}
	}
	return admin.Ingestion{Crawler: part("crawler", &g.crawler),
		Firehose: part("firehose", &g.firehose), Backfill: part("backfill", &g.backfill)}
}
