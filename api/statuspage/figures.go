package statuspage

import (
	"slices"
	"time"

	"cistern/chart"
)

// Charts are the recent figures.
type Charts struct {
	Hour Chart `json:"hour"`
	Day  Chart `json:"day"`
}

// Chart has the points of the public series in one range, oldest first. Times are unix seconds.
type Chart struct {
	Step   float64 `json:"step"`
	Span   float64 `json:"span"` // that the range keeps
	Start  float64 `json:"start"`
	Series Series  `json:"series"`
}

// Series are the public series.
type Series struct {
	Records chart.Points `json:"records"`
	Events  chart.Points `json:"events"`
	Live    chart.Points `json:"live"`
	Lag     chart.Points `json:"lag"`
}

// charts returns the points of all that is kept.
func charts(r *chart.Recorder) Charts {
	if r == nil {
		return Charts{}
	}
	return Charts{chartOf(r, r.Hour(time.Unix(0, 0))), chartOf(r, r.Day(time.Unix(0, 0)))}
}

func chartOf(r *chart.Recorder, v chart.View) Chart {
	of := func(name string) chart.Points { return valuesOf(r, v, name) }
	return Chart{Step: v.Step.Seconds(), Span: v.Span.Seconds(),
		Start:  float64(v.Start.UnixMilli()) / 1000,
		Series: Series{of("records"), of("events"), of("live"), of("lag")}}
}

// valuesOf returns the points of a series, nil if it is not recorded.
func valuesOf(r *chart.Recorder, v chart.View, name string) []float32 {
	i := slices.IndexFunc(r.Series(), func(s chart.Series) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return v.Values[i]
}
