package main

import (
	"context"
	"errors"
	"path/filepath"

	"cistern/cmd/cistern/command"
	"cistern/gate"
	"cistern/store/linkindex"
)

// linksDir is the directory of the backlinks index below --data.
const linksDir = "links"

// backlinks is the index of --backlinks; index is nil without the option.
type backlinks struct{ index *linkindex.Index }

// openBacklinks opens the index. It needs the store, in whose file system it writes. An index that
// cannot be opened does not keep the daemon from its work.
func openBacklinks(d *daemon) (b backlinks, err error) {
	if !d.cfg.Backlinks {
		return b, nil
	}
	if d.store.Ephemeral() {
		return b, command.UsageError(errors.New("--backlinks needs records: the store keeps " +
			"events only (--ephemeral)"))
	}
	dir := filepath.Join(d.cfg.Data, linksDir)
	b.index, err = linkindex.Open(linkindex.Options{Store: d.store, Dir: dir, Gate: &d.gates.links,
		Logger: d.log, Registerer: d.metrics})
	if err != nil {
		d.log.Error("the daemon goes on without the backlinks index, which cannot be opened: delete "+
			"its directory and restart, and it is built anew", "dir", dir, "err", err)
	}
	return b, nil
}

// run builds the index and follows the log, until ctx ends.
func (b backlinks) run(ctx context.Context) error {
	if b.index == nil {
		<-ctx.Done()
		return nil
	}
	return b.index.Run(ctx)
}

// close closes the index. The store is not frozen.
func (b backlinks) close() error {
	if b.index == nil {
		return nil
	}
	return b.index.Close()
}

// diskShort returns what tells maintenance why the disk is short of space, and pauses the backlinks
// index meanwhile. An empty reason ends it.
func diskShort(d *daemon) func(reason string) {
	return func(reason string) {
		d.maintain.SetDisk(reason)
		if reason == "" {
			d.gates.links.Open("disk")
			return
		}
		d.gates.links.Shut(gate.Cause{Name: "disk", Reason: reason})
	}
}
