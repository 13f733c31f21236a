//go:build linux && cgo

package main

/*
#include <sys/prctl.h>

// SLACK is by how many nanoseconds a timer of this process may be late, and SLACK_DEFAULT what
// Linux allows if nothing else was chosen for the process.
#define SLACK 1000000L
#define SLACK_DEFAULT 50000L

// slacken lets timers be a millisecond late. While anything runs, the monitor thread of the Go
// runtime sleeps 20 µs at a time: at 1,000 commits a second, which leave the processor idle in
// between, its wake-ups would cost a sixth of all processor time. Nothing here needs a finer timer.
//
// It must be a constructor: threads inherit the slack, and the runtime starts that thread before
// any code in Go. A slack that the operator chose, as by TimerSlackNSec= of systemd, stays.
__attribute__((constructor)) static void slacken(void) {
	if (prctl(PR_GET_TIMERSLACK, 0L, 0L, 0L, 0L) == SLACK_DEFAULT)
		prctl(PR_SET_TIMERSLACK, SLACK, 0L, 0L, 0L);
}
*/
import "C"
