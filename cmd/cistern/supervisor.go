package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
)

// supervisor tells systemd about the daemon, if systemd started it as a service of type notify, and
// handles the signals that do not end the daemon.
type supervisor struct {
	log   *slog.Logger
	ready func() error // why the daemon is of no use any more, nil while it is
}

// Run reports that the daemon serves, and then, as often as the unit demands, that it is alive,
// until ctx ends. A daemon that cannot write its store is not alive: systemd then starts it anew.
func (s supervisor) Run(ctx context.Context) error {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	s.notify(systemd.SdNotifyReady)
	var alive <-chan time.Time
	every, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		s.log.Warn("WATCHDOG_USEC is not understood: systemd is told nothing", "err", err)
	}
	if every > 0 {
		t := time.NewTicker(every / 2)
		defer t.Stop()
		alive = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
			s.log.Info("SIGHUP is ignored: there is nothing to read again; the log goes to " +
				"standard error, and a changed option needs a restart")
		case <-alive:
			if err := s.ready(); err != nil {
				s.log.Error("systemd is not told that the daemon is alive", "err", err)
				continue
			}
			s.notify(systemd.SdNotifyWatchdog)
		}
	}
}

// notify sends a state to systemd, if there is one that listens. A failure is logged: the daemon
// does its work all the same.
func (s supervisor) notify(state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		s.log.Warn("systemd cannot be told", "state", state,
			"err", fmt.Errorf("NOTIFY_SOCKET: %w", err))
	}
}

// stopping tells systemd that the daemon stops.
func (s supervisor) stopping() { s.notify(systemd.SdNotifyStopping) }
