package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"cistern/alert"
	"cistern/api/durable"
	"cistern/api/webhook"
	"cistern/backfill/hosts"
	"cistern/cmd/cistern/command"
	"cistern/condition"
	"cistern/console"
	"cistern/ingest/firehose"
	"cistern/ingest/identity"
	"cistern/maintain"
	"cistern/store"

	"github.com/dustin/go-humanize"
)

// The hosts alert together, once the failing ones have hostsPercent of all repositories and at
// least hostsLeast. Of 3,000 hosts some are always down.
const (
	hostsPercent = 10
	hostsLeast   = 10
)

// alertGrace is a value of --alert-after.
type alertGrace struct {
	kind  alert.Kind
	after time.Duration
}

func parseGrace(s string) (g alertGrace, err error) {
	name, text, _ := strings.Cut(s, "=")
	g.kind = alert.Kind(name)
	g.after, err = command.ParseAge(text)
	kinds := alert.Kinds[1:] // a disk that is short alerts at once
	if err != nil || !slices.Contains(kinds, g.kind) {
		return alertGrace{}, fmt.Errorf("want one of %s and a duration, such as source=10m",
			strings.Trim(fmt.Sprint(kinds), "[]"))
	}
	return g, nil
}

// checkAlerts returns the mistakes of the options of alerts together.
func (c *Config) checkAlerts() error {
	if c.AlertWebhook == "" {
		return nil
	}
	if err := webhook.CheckURL(c.AllowPrivate)(c.AlertWebhook); err != nil {
		return fmt.Errorf("--alert-webhook: the URL %w", err)
	}
	if c.AlertSecret == nil {
		return fmt.Errorf("--alert-webhook needs its secret in %sALERT_WEBHOOK_SECRET", command.EnvPrefix)
	}
	return nil
}

// newAlerts makes the watcher of what fails.
func (d *daemon) newAlerts() (err error) {
	o := alert.Options{Failures: d.failures, Policies: map[alert.Kind]alert.Policy{},
		Logger: d.log, Registerer: d.metrics}
	for _, g := range d.cfg.AlertAfter {
		p := alert.DefaultPolicies()[g.kind]
		p.After = g.after
		o.Policies[g.kind] = p
	}
	if d.cfg.AlertWebhook != "" {
		if u, err := url.Parse(d.cfg.AlertWebhook); err == nil {
			d.log.Info("alerts are sent to a webhook", "host", u.Host)
		}
		poster := webhook.NewPoster(nil, d.cfg.AllowPrivate, userAgent())
		o.Send = func(ctx context.Context, id string, body []byte) error {
			return poster.Post(ctx, d.cfg.AlertWebhook, [][]byte{d.cfg.AlertSecret}, id, body)
		}
	}
	if d.tune.alerts != nil {
		d.tune.alerts(&o)
	}
	d.alerts, err = alert.New(o)
	return err
}

// failures returns everything that fails at the moment.
func (d *daemon) failures(time.Time) (all []alert.Failure, err error) {
	together, err := failingTogether(d.store, d.backfill.HostStanding)
	if err != nil {
		return nil, err
	}
	named, err := failingHosts(d.store, d.backfill.HostStanding, d.cfg.named())
	if err != nil {
		return nil, err
	}
	view := d.maintain.View()
	all = slices.Concat(failingDisk(view, d.cfg.Data), together, named,
		failingDirectories(d.identity.Faults(), len(d.cfg.PLC)), failingWebhooks(d.api.Subscriptions()),
		failingOperations(view), failingConditions(d.conditions.Status()))
	if !d.gates.firehose.IsShut() {
		all = append(all, failingSources(d.sources.Status())...)
	}
	return all, nil
}

func failingDisk(view maintain.View, dir string) (all []alert.Failure) {
	if view.Shortage == "" {
		return nil
	}
	f := alert.Failure{Kind: alert.Disk, Name: dir, Final: true,
		Error: "the disk is short: " + view.Shortage}
	if view.Exhausted {
		f.Error += "; what frees space has ended, and it is not enough"
	}
	return append(all, f)
}

// failingTogether returns the hosts as one subject: a row for each host that is down would hide
// what matters.
func failingTogether(s *store.Store, standing func(uint32) hosts.Standing) (
	[]alert.Failure, error) {
	var all, lost, failing int64
	_, _, err := s.Hosts("", 1, func(h *store.Host) bool {
		all += h.Accounts
		now := standing(h.ID)
		// The row tells of hosts that were not asked since the daemon started.
		if !now.Banned && (!now.FailingSince.IsZero() || h.Failing > h.LastSeen) {
			lost += h.Accounts
			failing++
		}
		return false
	})
	if err != nil || lost < hostsLeast || lost*100 < all*hostsPercent {
		return nil, err
	}
	return []alert.Failure{{Kind: alert.Hosts, Name: "all", Attempts: int(failing),
		Error: fmt.Sprintf("%s failing, with %s of %s repositories", console.Count(failing, "host"),
			humanize.Comma(lost), humanize.Comma(all))}}, nil
}

// failingHosts returns the hosts that fail, of those that the operator has named.
func failingHosts(s *store.Store, standing func(uint32) hosts.Standing, named []string) (
	all []alert.Failure, err error) {
	seen := map[string]bool{}
	for _, address := range named {
		name := identity.HostOf(address)
		if seen[name] {
			continue
		}
		seen[name] = true
		row, err := s.HostNamed(name)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		now := standing(row.ID)
		if now.Banned || now.FailingSince.IsZero() {
			continue
		}
		all = append(all, alert.Failure{Kind: alert.Host, Name: name, Since: now.FailingSince,
			Attempts: now.Faults, Error: cmp.Or(now.Error, row.Error)})
	}
	return all, nil
}

// failingDirectories returns a failure for each fault of a PLC directory; directories is the number
// of --plc. If all fail now, accounts with an unknown identity can be neither fetched nor verified.
// The error comes last in a text, since an alert shows the first 256 bytes.
func failingDirectories(faults []identity.Fault, directories int) (all []alert.Failure) {
	remedy := "check the directory and the network, or add another one with --plc"
	works := func(f identity.Fault) bool { return f.Well }
	if len(faults) < directories || slices.ContainsFunc(faults, works) {
		remedy = "another directory is asked instead"
	}
	for _, f := range faults {
		now := remedy
		if f.Well {
			now = "it works again"
		}
		all = append(all, alert.Failure{Kind: alert.Directory, Name: f.Base, Since: f.Since,
			Attempts: f.Attempts, Error: fmt.Sprintf(
				"%s of %s lookups failed in the last %.0f minutes; %s; newest error: %s",
				humanize.Comma(int64(f.Failed)), humanize.Comma(int64(f.Asked)),
				identity.FaultWindow.Minutes(), now, f.Error)})
	}
	return all
}

// failingSources returns the firehoses that are not connected. Those that Cistern added itself are
// hosts that the operator did not ask for.
func failingSources(sources []firehose.Status) (all []alert.Failure) {
	for _, s := range sources {
		if s.Direct || s.Running || s.Failures == 0 {
			continue
		}
		all = append(all, alert.Failure{Kind: alert.Source, Name: s.URL, Attempts: s.Failures,
			Error: strings.TrimSpace(s.LastFailure.Kind + ": " + s.LastFailure.Detail)})
	}
	return all
}

func failingWebhooks(subscriptions []durable.Status) (all []alert.Failure) {
	for _, s := range subscriptions {
		hook := s.Webhook
		if hook == nil || hook.Attempts == 0 && hook.ParkedSince == nil {
			continue
		}
		f := alert.Failure{Kind: alert.Subscription, Name: s.Name, Attempts: hook.Attempts,
			Error: hook.LastError}
		if hook.ParkedSince != nil {
			f.Final, f.Error = true, "its webhook is parked: "+cmp.Or(hook.LastError, hook.Reason)
		}
		all = append(all, f)
	}
	return all
}

func failingOperations(view maintain.View) (all []alert.Failure) {
	for _, o := range view.Operations {
		if o.Failures > 0 {
			all = append(all, alert.Failure{Kind: alert.Operation, Name: o.Name,
				Attempts: o.Failures, Error: o.Error})
		}
	}
	return all
}

func failingConditions(conditions []condition.Status) (all []alert.Failure) {
	for _, c := range conditions {
		f := alert.Failure{Kind: alert.Condition, Name: c.Name, Error: c.Error}
		if c.Name == "mount" && c.State == condition.Waiting {
			f.Final, f.Error = true, c.Reason
		}
		if f.Error != "" {
			all = append(all, f)
		}
	}
	return all
}
