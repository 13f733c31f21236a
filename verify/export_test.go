package verify

import "context"

// Rest returns the function by which a walk rests between two pieces of work.
func Rest(share int) func(context.Context) error { return newPacer(share).rest }
