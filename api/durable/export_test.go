package durable

import (
	"time"

	"cistern/store"
)

// Window is a window.
type Window struct{ w *window }

func NewWindow(p store.SubscriptionPosition, most int, retry time.Duration, now time.Time) Window {
	return Window{newWindow(p, most, retry, now)}
}

func (w Window) Sent(id uint64, did string, now time.Time)       { w.w.sent(id, did, now) }
func (w Window) Again(id uint64, did string, now time.Time) bool { return w.w.again(id, did, now) }
func (w Window) Settle(id uint64) bool                           { return w.w.settle(id) }
func (w Window) Due(now time.Time) []uint64                      { return w.w.due(now) }
func (w Window) Pass(next uint64)                                { w.w.pass(next) }
func (w Window) Restart()                                        { w.w.restart() }
func (w Window) Room() int                                       { return w.w.room() }
func (w Window) Position() store.SubscriptionPosition            { return w.w.position() }
func (w Window) Alarm() (time.Time, bool)                        { return w.w.alarm() }
func (w Window) Lost(tail uint64, now time.Time) (uint64, bool)  { return w.w.lost(tail, now) }
