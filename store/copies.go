package store

import "fmt"

// Copy is the last result of the commands that made a copy of one kind at one destination. The
// store keeps it for package copies, whose Row explains the fields. Times are unix milliseconds;
// 0: never.
type Copy struct {
	Kind, Destination string

	Began            int64
	Ended, Succeeded int64
	Generation       string
	Bytes, Millis    int64
	Error            string
	Failures         int
}

// copiesV1 has all results, a row of meta: they are few, and are replaced together.
type copiesV1 struct {
	Copies []copyV1 `cbor:"1,keyasint,omitempty"`
}

// copyV1 is Copy on disk.
type copyV1 struct {
	Kind        string `cbor:"1,keyasint"`
	Destination string `cbor:"2,keyasint"`
	Began       int64  `cbor:"3,keyasint,omitempty"`
	Ended       int64  `cbor:"4,keyasint,omitempty"`
	Succeeded   int64  `cbor:"5,keyasint,omitempty"`
	Generation  string `cbor:"6,keyasint,omitempty"`
	Bytes       int64  `cbor:"7,keyasint,omitempty"`
	Millis      int64  `cbor:"8,keyasint,omitempty"`
	Error       string `cbor:"9,keyasint,omitempty"`
	Failures    int    `cbor:"10,keyasint,omitempty"`
}

// PutCopies replaces all results. The commit fails if a number is negative.
func (b *control) PutCopies(all []Copy) {
	var row copiesV1
	for i := range all {
		if err := all[i].validate(); err != nil {
			b.fail(err)
			return
		}
		row.Copies = append(row.Copies, copyV1(all[i]))
	}
	b.put(metaKey(metaCopies), row)
}

// Copies returns what PutCopies wrote last. A store that is restored from a backup has none: they
// are about the log that was backed up.
func (s *Store) Copies() ([]Copy, error) {
	if s.restored && s.opts.ReadOnly { // renewEpoch deletes the row of a store that may be written
		return nil, nil
	}
	return s.copies(s.db)
}

func (s *Store) copies(r reader) (all []Copy, err error) {
	var row copiesV1
	if _, err := s.metaRow(r, metaCopies, &row); err != nil {
		return nil, err
	}
	for _, v := range row.Copies {
		c := Copy(v)
		if err := c.validate(); err != nil {
			return nil, fmt.Errorf("%w: %w", err, ErrCorrupt)
		}
		all = append(all, c)
	}
	return all, nil
}

// validate returns an error if a number is negative.
func (c *Copy) validate() error {
	if min(c.Began, c.Ended, c.Succeeded, c.Bytes, c.Millis, int64(c.Failures)) < 0 {
		return fmt.Errorf("%s to %s has a negative number: %+v", c.Kind, c.Destination, *c)
	}
	return nil
}

// checkCopies checks that the results can be read.
func checkCopies(c *checker) error {
	if _, err := c.s.copies(c.r); err != nil {
		c.report("copies: %v", err)
	}
	return nil
}
