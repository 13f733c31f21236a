package phase

import "context"

// Next chooses the next action, as Run does.
func (k *Keeper) Next(ctx context.Context) (Action, context.Context) { return k.next(ctx) }

// Take takes an action of Next, as Run does.
func (k *Keeper) Take(ctx context.Context, a Action) error { return k.take(ctx, a) }
