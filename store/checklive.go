package store

import (
	"errors"
	"slices"
)

// sources checks the rows of firehose and crawl sources, their progress and their cursors: each
// must be readable, and each cursor must agree with the copy in memory.
func (c *checker) sources() error {
	err := c.space(spaceCursor, func(key, value []byte) error {
		seq, err := parseCursor(value)
		if last, ok := c.cursors[string(key[1:])]; err != nil || !ok || seq != last {
			c.report("cursor of %q: is %d on disk and %d in memory (%v)", key[1:], seq, last, err)
		}
		delete(c.cursors, string(key[1:]))
		return nil
	})
	for source := range c.cursors {
		c.report("cursor of %q: is in memory and not on disk", source)
	}
	return errors.Join(err, c.space(spaceSource, func(key, value []byte) error {
		var src Source
		if err := c.s.codec.decode(value, &src); err != nil || src.URL != string(key[1:]) {
			c.report("source %q: holds %q (%v)", key[1:], src.URL, err)
		}
		return nil
	}), c.space(spaceProgress, func(key, value []byte) error {
		var p Progress
		if err := c.s.codec.decode(value, &p); err != nil {
			c.report("progress of %q: %v", key[1:], err)
		}
		return nil
	}), c.space(spaceCrawlSource, func(key, value []byte) error {
		var src CrawlSource
		if err := c.s.codec.decode(value, &src); err != nil || src.name() != string(key[1:]) {
			c.report("crawl source %q: holds %q (%v)", key[1:], src.name(), err)
		}
		return nil
	}))
}

// marks checks that every row of the progress of some work is readable.
func (c *checker) marks() error {
	err := c.space(spaceCrawl, func(key, value []byte) error {
		l, err := parseCrawlKey(key)
		if _, verr := c.s.parseCrawlMark(value); err != nil || verr != nil {
			c.report("mark of list %q: %v", l, errors.Join(err, verr))
		}
		return nil
	})
	err = errors.Join(err, c.space(spaceReconcile, func(key, value []byte) error {
		url, err := parseReconcileKey(key)
		if _, verr := c.s.parseReconciliation(value); err != nil || verr != nil {
			c.report("reconciliation of %q: %v", url, errors.Join(err, verr))
		}
		return nil
	}), c.space(spaceDescribe, func(key, value []byte) error {
		did, err := parseDescribeKey(key)
		if verr := c.s.codec.decode(value, new(DescribeRetry)); err != nil || verr != nil {
			c.report("describe retry of %q: %v", did, errors.Join(err, verr))
		}
		return nil
	}))
	if _, _, err := c.s.refilterCursor(c.r); err != nil {
		c.report("refilter cursor: %v", err)
	}
	if _, err := c.s.metaRow(c.r, metaReconcileHosts, new(reconcileHostsV1)); err != nil {
		c.report("reconciliation of all hosts: %v", err)
	}
	if t, err := c.s.traffic(c.r); err != nil || t.Bytes < 0 {
		c.report("traffic of a day: %+v, %v", t, err)
	}
	return err
}

// subscriptions checks that every subscription is readable and has a position, within the log, and
// that only webhooks have the state of one.
func (c *checker) subscriptions() error {
	names, webhooks := map[string]bool{}, map[string]bool{}
	err := c.space(spaceSubscribed, func(key, value []byte) error {
		sub, err := c.s.parseSubscription(key, value)
		webhooks[sub.Name] = sub.Webhook != nil
		if names[sub.Name] = true; err != nil {
			c.report("subscription %q: %v", sub.Name, err)
		}
		return nil
	})
	err = errors.Join(err, c.space(spacePosition, func(key, value []byte) error {
		name, err := parseSubscriptionKey(spacePosition, key)
		p, perr := c.s.parsePosition(value)
		switch {
		case err != nil || perr != nil:
			c.report("position of subscription %q: %v", name, errors.Join(err, perr))
		case !names[name]:
			c.report("position of subscription %q: there is no such subscription", name)
		case p.Next > c.next:
			c.report("position of subscription %q: %d, the next event is %d", name, p.Next, c.next)
		}
		delete(names, name)
		return nil
	}))
	for name := range names {
		c.report("subscription %q: has no position", name)
	}
	err = errors.Join(err, c.space(spaceWebhook, func(key, value []byte) error {
		name, err := parseSubscriptionKey(spaceWebhook, key)
		st, serr := c.s.parseWebhookState(value)
		switch {
		case err != nil || serr != nil:
			c.report("webhook of subscription %q: %v", name, errors.Join(err, serr))
		case !webhooks[name]:
			c.report("webhook of subscription %q: there is no such webhook", name)
		case st == WebhookState{}:
			c.report("webhook of subscription %q: its state is empty", name)
		}
		return nil
	}))
	return err
}

// filters checks that the selections and the filter in force are the same on disk and in memory.
func (c *checker) filters() error {
	left := c.filtersWere.all[1:]
	err := c.space(spaceFilter, func(key, value []byte) error {
		number, err := parseFilterKey(key)
		if err != nil {
			return err
		}
		var is selectionV1
		err = c.s.codec.decode(value, &is)
		if len(left) == 0 || left[0].number != number {
			c.report("filter version %d: it is not in memory", number)
			return nil
		}
		x := left[0]
		if err != nil || !is.equal(x.row()) {
			c.report("filter version %d: is %+v, not as in memory (%v)", number, is, err)
		}
		left = left[1:]
		return nil
	})
	if err != nil {
		return err
	}
	for _, x := range left {
		c.report("filter version %d: is in memory and not on disk", x.number)
	}
	var is inForceV1
	f := c.filtersWere.inForce
	err = get(c.r, metaKey(metaFilter), func(v []byte) error { return c.s.codec.decode(v, &is) })
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	same := slices.Equal(is.Excludes, f.Config().Excludes) && is.Version == f.Version &&
		is.Readmitted == f.Readmitted && is.Widened == f.Widened
	if err != nil || !same {
		c.report("filter in force: is %+v, not version %d as in memory (%v)", is, f.Version, err)
	}
	return nil
}

// buffers compares the buffered commits with the memory; repos has compared the memory with the
// states of the rows.
func (c *checker) buffers() error {
	rows := map[string]buffered{}
	err := c.space(spaceBuffer, func(key, value []byte) error {
		did, rev, err := parseBufferKey(key)
		if err != nil {
			return err
		}
		now := rows[did]
		rows[did] = buffered{commits: now.commits + 1, bytes: now.bytes + int64(len(value)), rev: rev}
		c.got[countBuffered]++
		return nil
	})
	if err != nil {
		return err
	}
	for did, is := range rows {
		if says := c.buffered[did]; is.commits != says.commits || is.bytes != says.bytes ||
			is.rev > says.rev {
			c.report("buffer of %s: %d commits of %d bytes up to %s on disk, %d of %d up to %s in memory",
				did, is.commits, is.bytes, is.rev, says.commits, says.bytes, says.rev)
		}
		if err := c.known(did); err != nil {
			return err
		}
	}
	for did := range c.buffered {
		if rows[did].commits == 0 {
			c.report("buffer of %s: is in memory and not on disk", did)
		}
	}
	return nil
}

// known reports a difference if a repository has buffered commits and no row.
func (c *checker) known(did string) error {
	ok, err := holds(c.r, repoKey(nil, did))
	if err == nil && !ok {
		c.report("buffer of %s: the repository has no row", did)
	}
	return err
}
