package chart

import (
	"math"
	"time"
)

// Trend returns by how much a second values change that are a step apart: the slope of the straight
// line that is nearest to the known ones (least squares). ok is false if fewer than least are
// known.
func Trend(step time.Duration, values []float32, least int) (perSecond float64, ok bool) {
	var n, sumX, sumY float64
	for i, v := range values {
		if y := float64(v); !math.IsNaN(y) {
			n, sumX, sumY = n+1, sumX+float64(i), sumY+y
		}
	}
	if n < float64(max(2, least)) {
		return 0, false
	}
	var products, squares float64 // around the means, which keeps the digits of large values
	for i, v := range values {
		if y := float64(v); !math.IsNaN(y) {
			x := float64(i) - sumX/n
			products, squares = products+x*(y-sumY/n), squares+x*x
		}
	}
	return products / squares / step.Seconds(), true
}
