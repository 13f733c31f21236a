package command_test

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"cistern/cmd/cistern/command"
)

// TestSignals checks that the first signal stops the process cleanly, that an echo of it counts as
// the same signal, and that a second one exits at once.
func TestSignals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals, left := make(chan os.Signal, 2), make(chan int, 1)
		p := &command.Process{Stderr: io.Discard, Exit: func(code int) { left <- code }}
		stuck := errors.New("was stuck")
		err := p.Until(t.Context(), signals, func(ctx context.Context) error {
			signals <- syscall.SIGTERM
			<-ctx.Done()
			<-time.After(command.EchoMax / 2)
			signals <- syscall.SIGTERM
			<-time.After(command.EchoMax / 2)
			select {
			case <-left:
				t.Error("left at the echo of the first signal")
			default:
			}
			signals <- syscall.SIGINT
			if code := <-left; code != command.ExitInterrupted {
				t.Errorf("left with %d", code)
			}
			return stuck
		})
		if !errors.Is(err, stuck) {
			t.Error(err)
		}
	})
}
