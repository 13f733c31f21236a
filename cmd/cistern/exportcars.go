package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"cistern/console"
	"cistern/copies"
	"cistern/dump"
	"cistern/dump/cars"
	"cistern/dump/cars/manifest"
	"cistern/store"

	"github.com/dustin/go-humanize"
)

// setFormat reads the format of an export.
func (s *exportSession) setFormat(name string) (err error) {
	if s.cars = name == "car"; s.cars {
		return nil
	}
	if s.format, err = dump.ParseFormat(name); err != nil {
		err = fmt.Errorf("%w, car", err)
	}
	return err
}

// checkArchive returns an error for an archive that is not a file: a bucket takes objects whose
// size is known when they begin.
func checkArchive(name string) error {
	if strings.Contains(name, "://") {
		return fmt.Errorf("%s: an archive is a file; name a prefix of the bucket, which gets a CAR for "+
			"each repository", name)
	}
	return nil
}

// exportCARs exports whole repositories of a store.
func (s *exportSession) exportCARs(ctx context.Context, from *store.Store) (made copies.Result,
	err error) {
	shown, total := s.Progress("exporting", console.Unit{Noun: "repositories"}), from.Counts()["repos"]
	if len(s.dids) > 0 {
		total = int64(len(s.dids))
	}
	o := cars.Options{Source: from, Destination: s.to, DIDs: s.dids, Progress: func(p cars.Progress) {
		shown.Set(console.Work{Done: p.Repositories, Found: p.Found, Total: total, More: size(p.Bytes)})
	}, Holder: holder()}
	if s.archive != "" {
		if o.Archive, err = cars.CreateArchive(s.archive); err != nil {
			return made, err
		}
		defer func() { err = errors.Join(err, o.Archive.Close()) }()
		o.TempDir = filepath.Dir(s.archive)
	}
	var m manifest.Manifest
	err = shown.During(ctx, func(ctx context.Context) (err error) {
		m, err = cars.Run(ctx, o)
		return err
	})
	switch {
	case errors.Is(err, cars.ErrComplete):
		return made, fmt.Errorf("%w: name another destination", err)
	case err != nil && ctx.Err() != nil && s.archive == "":
		return made, fmt.Errorf("%w: run the command again to go on", err)
	case err != nil:
		return made, err
	}
	return copies.Result{Complete: true, Bytes: m.Bytes}, s.exported(&m)
}

// exported prints what an export of repositories has. It is an error if a copy is damaged.
func (s *exportSession) exported(m *manifest.Manifest) error {
	if s.json {
		if err := json.NewEncoder(s.Stdout).Encode(m); err != nil {
			return err
		}
	} else {
		_, err := fmt.Fprintf(s.Stdout, "exported %s, %s, %s; %s left out, and the manifest says why\n",
			console.Count(m.Repositories, "repository"), console.Count(m.Records, "record"), size(m.Bytes),
			humanize.Comma(m.LeftOut))
		if err != nil {
			return err
		}
	}
	if m.Damaged > 0 {
		return fmt.Errorf("%s left out, because the stored copy does not agree with its commit: run "+
			"'cistern maintain run verify'", console.Count(m.Damaged, "repository"))
	}
	return nil
}
