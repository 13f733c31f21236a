package simnet

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// Options describes a network. The same Options give the same bytes.
type Options struct {
	// Seed is where everything random comes from.
	Seed uint64
	// Hosts is the number of PDS hosts. Default 4.
	Hosts int
	// Skew gives every host one account, as far as there are enough, and host i of the rest a share in
	// proportion to (i+1)^-Skew: at 1.5 half of all accounts live on a few of 1,000 hosts. Default 0,
	// all hosts have equally many.
	Skew float64
	// QuietEvery makes every nth account unknown to relays until its first event: the account has
	// not written since the relays began. Default 0, none.
	QuietEvery int
	// Limit is what every PDS answers to one client, to be changed by Host.SetLimit. Default
	// ReferenceLimit.
	Limit Limit
	// NoLimit has them answer any number of requests, and state no quota. For benchmarks.
	NoLimit bool
	// Relays is the number of relays, which know all accounts but the quiet ones. Default 1.
	Relays int
	// Manners is how much relays announce. Default Polite.
	Manners Manners
	// Window is how many messages every stream keeps; see Host.SetWindow. Default 2^20.
	Window int
	// Repos is the number of accounts, spread over the hosts. Default 20.
	Repos int
	// RecordsMedian is the median number of records of a repository; sizes are log-normal, their mean
	// is about twice that. Default 40.
	RecordsMedian int
	// RecordsMax bounds the records of one repository. Default 50 times the median.
	RecordsMax int
	// Empty is how many accounts, the last ones, have no record at all. Default 0.
	Empty int
	// OddKeys is how many accounts, the first ones, hold one legal MST key that is not a valid
	// collection/rkey path. Default 0.
	OddKeys int
	// LegacyEvery gives every nth account a DID document in the form used before Multikey. Default 0,
	// none.
	LegacyEvery int
	// P256Every gives every nth account a P-256 key, the others have K-256. Default 4; negative: none.
	P256Every int
	// Epoch is the newest time in generated content, which reaches a few weeks back from there.
	// Default 2026-01-01.
	Epoch time.Time
	// Present gives what is written after Build the time of this machine. Default off: each account
	// has a clock of its own, which goes on from Epoch.
	Present bool
	// Gzip makes hosts compress CARs for clients that accept it, as the reference PDS does. Default
	// off.
	Gzip bool
	// Clutter makes hosts send what readers have to ignore: blocks without a reference, under CIDs
	// that no repository has, in every CAR, and services of other kinds and forms in every DID
	// document. Default off.
	Clutter bool
	// Preorder sends CAR blocks in tree order instead of the commit and then by falling CID,
	// as the reference PDS does. Default off.
	Preorder bool
}

func (o Options) withDefaults() Options {
	o.Hosts = cmp.Or(o.Hosts, 4)
	o.Relays = cmp.Or(o.Relays, 1)
	o.Manners = cmp.Or(o.Manners, Polite)
	o.Window = cmp.Or(o.Window, 1<<20)
	if o.Limit == (Limit{}) && !o.NoLimit {
		o.Limit = ReferenceLimit()
	}
	o.Repos = cmp.Or(o.Repos, 20)
	o.RecordsMedian = cmp.Or(o.RecordsMedian, 40)
	o.RecordsMax = cmp.Or(o.RecordsMax, 50*o.RecordsMedian)
	o.P256Every = max(0, cmp.Or(o.P256Every, 4))
	o.Epoch = cmp.Or(o.Epoch, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	return o
}

func (o Options) validate() error {
	var errs []error
	for _, f := range []struct {
		name  string
		value int
	}{
		{"Hosts", o.Hosts}, {"Relays", o.Relays}, {"Window", o.Window}, {"Repos", o.Repos},
		{"RecordsMedian", o.RecordsMedian}, {"RecordsMax", o.RecordsMax},
		{"Empty", o.Empty}, {"OddKeys", o.OddKeys}, {"LegacyEvery", o.LegacyEvery},
		{"QuietEvery", o.QuietEvery},
		{"Limit.InFlight", o.Limit.InFlight}, {"Limit.Requests", o.Limit.Requests},
		{"Limit.Fetches", o.Limit.Fetches}, {"Limit.Window", int(o.Limit.Window)},
	} {
		if f.value < 0 {
			errs = append(errs, fmt.Errorf("%s is negative: %d", f.name, f.value))
		}
	}
	if o.Skew < 0 {
		errs = append(errs, fmt.Errorf("skew is negative: %g", o.Skew))
	}
	if o.Empty+o.OddKeys > o.Repos {
		errs = append(errs, fmt.Errorf("accounts Empty %d and OddKeys %d exceed Repos %d",
			o.Empty, o.OddKeys, o.Repos))
	}
	return errors.Join(errs...)
}

// every reports whether account i is one of those an "every nth" option selects.
func every(n, i int) bool { return n > 0 && i%n == n-1 }
