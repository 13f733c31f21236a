package status

import (
	"fmt"
	"strings"

	"cistern/console"
)

// Problems returns what needs an operator, a sentence each: the store is not ready, alerts, and
// sources that are not connected. unready is why the daemon is not ready, "" if it is.
func (a *Answer) Problems(unready string) (all []string) {
	if unready != "" {
		all = append(all, unready)
	}
	alerts := map[string]bool{}
	for _, s := range a.Alerts.Items {
		if s.State != "alert" {
			continue
		}
		alerts[s.Kind+" "+s.Subject] = true
		all = append(all, fmt.Sprintf("alert: %s %s since %s: %s", s.Kind, s.Subject,
			a.ago(s.Since), s.Error))
	}
	if more := a.Alerting - len(alerts); more > 0 {
		all = append(all, fmt.Sprintf("%s more: see 'cistern alerts'", console.Count(int64(more), "alert")))
	}
	if len(a.Stats.Paused["firehose"]) > 0 {
		return all // no source is to be connected
	}
	for _, s := range a.Sources.Items {
		if !s.Running && !s.Direct && !alerts["source "+s.URL] {
			all = append(all, strings.TrimSuffix("not connected: "+s.URL+": "+s.failure(), ": "))
		}
	}
	return all
}

// failure returns why a source is not connected, "" if that is unknown.
func (s *Source) failure() string {
	if s.LastFailure == nil {
		return ""
	}
	return s.LastFailure.Detail
}
