package command

import (
	"context"
	"os"
)

// EchoMax is how long after the first signal another one counts as the same.
const EchoMax = echoMax

// Until runs fn as UntilSignal does, with signals from a channel.
func (p *Process) Until(ctx context.Context, signals <-chan os.Signal, fn func(context.Context) error) error {
	return p.until(ctx, signals, fn)
}
