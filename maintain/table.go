package maintain

import (
	"errors"
	"fmt"
)

// Pair names two different operations, in either order.
type Pair [2]string

// table says which operations exclude each other, by their places in Options.Operations.
type table [][]bool

// newTable returns the table in which everything excludes everything but the pairs. It is
// symmetric, since a pair has no order.
func newTable(operations []Operation, together []Pair) (table, error) {
	excludes, place := make(table, len(operations)), map[string]int{}
	for i, op := range operations {
		place[op.Name] = i
		excludes[i] = make([]bool, len(operations))
		for j := range excludes[i] {
			excludes[i][j] = true
		}
	}
	var all []error
	for _, p := range together {
		a, okA := place[p[0]]
		b, okB := place[p[1]]
		switch {
		case !okA || !okB || a == b:
			all = append(all, fmt.Errorf("pair %q: these are not two operations", p))
		case operations[a].Alone || operations[b].Alone:
			all = append(all, fmt.Errorf("pair %q: one of them runs alone", p))
		case !excludes[a][b]:
			all = append(all, fmt.Errorf("pair %q: it is in the table already", p))
		default:
			excludes[a][b], excludes[b][a] = false, false
		}
	}
	return excludes, errors.Join(all...)
}
