package chart

import (
	"math"
	"strconv"
)

// Points are values of a series. In JSON, an unknown one is null.
type Points []float32

// MarshalJSON writes six digits of each value, which is more than a chart shows.
func (p Points) MarshalJSON() ([]byte, error) {
	b := append(make([]byte, 0, 8*len(p)+2), '[')
	for i, v := range p {
		if i > 0 {
			b = append(b, ',')
		}
		if math.IsNaN(float64(v)) {
			b = append(b, "null"...)
			continue
		}
		b = strconv.AppendFloat(b, float64(v), 'g', 6, 32)
	}
	return append(b, ']'), nil
}
