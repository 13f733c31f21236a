package identity

import (
	"errors"
	"net/url"
	"strings"
	"time"
)

// Fault is a PLC directory that does not answer enough requests: it cannot be reached, it answers
// with an error or a page, or it refuses requests. A DID that it does not have is an answer.
type Fault struct {
	Base     string    // its URL, without a password
	Since    time.Time // when too many requests had failed
	Attempts int       // requests that failed, from the first that led to the fault on
	Failed   int       // requests of the last FaultWindow that failed
	Asked    int       // requests of the last FaultWindow
	Well     bool      // few fail now: the fault ends if that lasts
	Error    string    // of the newest request that failed
}

// A fault begins once at least 1 of faultShare requests of the last FaultWindow failed, and at
// least faultLeast requests. It ends once fewer than 1 of wellShare requests fail, and this lasts
// for wellTime. So one moment of failures makes a fault of less than 8 minutes (FaultWindow,
// wellTime and one probe), which is shorter than the default grace of an alert.
const (
	// FaultWindow is the time whose requests are judged.
	FaultWindow = 5 * time.Minute

	faultShare = 4
	faultLeast = 4
	wellShare  = 10
	wellTime   = 2 * time.Minute
)

// fault is the state of one directory.
type fault struct {
	tally    tally
	since    time.Time // when the fault began; zero: there is no fault
	well     time.Time // since when few requests fail; zero: too many do
	attempts int
	cause    string // why the newest request failed
}

// answered counts a request that was answered.
func (f *fault) answered(now time.Time) {
	f.tally.at(now).answered++
	f.judge(now)
}

// failed counts a request that was not answered.
func (f *fault) failed(err error, now time.Time) {
	f.tally.at(now).failed++
	f.blame(err)
	f.judge(now)
}

// refused counts a request that was refused by a 429.
func (f *fault) refused(err error, now time.Time) {
	f.tally.at(now).refused++
	f.blame(err)
	f.judge(now)
}

// missed counts a probe that was not made because the directory has asked us to wait.
func (f *fault) missed(now time.Time) {
	f.tally.at(now).refused++
	f.judge(now)
}

// blame counts an attempt that failed, and keeps its error without the DID.
func (f *fault) blame(err error) {
	f.attempts++
	f.cause = err.Error()
	if u, ok := errors.AsType[*url.Error](err); ok { // it names the DID of one request
		f.cause = strings.Replace(f.cause, u.Error(), u.Err.Error(), 1)
	}
}

// judge begins or ends the fault.
func (f *fault) judge(now time.Time) {
	failed, asked := f.tally.sum(now)
	few := asked > 0 && failed*wellShare < asked
	switch {
	case f.since.IsZero():
		if failed >= faultLeast && failed*faultShare >= asked {
			f.since, f.well, f.attempts = now, time.Time{}, failed
		}
	case !few:
		f.well = time.Time{}
	case f.well.IsZero():
		f.well = now
	case now.Sub(f.well) >= wellTime:
		f.since = time.Time{}
	}
}

// suspect reports whether the directory should be probed.
func (f *fault) suspect(now time.Time) bool {
	failed, _ := f.tally.sum(now)
	return failed > 0 || !f.since.IsZero()
}

// view returns the fault of the directory at base. ok reports whether the directory has a fault.
func (f *fault) view(base string, now time.Time) (v Fault, ok bool) {
	f.judge(now)
	if f.since.IsZero() {
		return Fault{}, false
	}
	v = Fault{Base: base, Since: f.since, Attempts: f.attempts, Well: !f.well.IsZero(), Error: f.cause}
	if u, err := url.Parse(base); err == nil {
		v.Base = u.Redacted()
	}
	v.Failed, v.Asked = f.tally.sum(now)
	return v, true
}
