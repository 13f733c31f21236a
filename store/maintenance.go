package store

import (
	"errors"
	"fmt"
)

// Maintenance is the state of an operation of maintenance that survives a restart. The store keeps
// it for package maintain, whose Row explains the fields. Times are unix milliseconds; 0: never.
type Maintenance struct {
	Name    string
	Began   bool
	Needs   int
	Behind  []string
	Next    bool
	Waiting []string

	Ended, Succeeded int64
	Error            string
	Failures         int
	Due              int64
}

// maintenanceV1 is Maintenance on disk, under its name.
type maintenanceV1 struct {
	Began     bool     `cbor:"1,keyasint,omitempty"`
	Needs     int      `cbor:"2,keyasint,omitempty"`
	Behind    []string `cbor:"3,keyasint,omitempty"`
	Next      bool     `cbor:"4,keyasint,omitempty"`
	Waiting   []string `cbor:"5,keyasint,omitempty"`
	Ended     int64    `cbor:"6,keyasint,omitempty"`
	Succeeded int64    `cbor:"7,keyasint,omitempty"`
	Error     string   `cbor:"8,keyasint,omitempty"`
	Failures  int      `cbor:"9,keyasint,omitempty"`
	Due       int64    `cbor:"10,keyasint,omitempty"`
}

// PutMaintenance writes the state of an operation, replacing the one with the same name. The commit
// fails if it has no name or a negative number.
func (b *control) PutMaintenance(m Maintenance) {
	err := m.validate()
	if m.Name == "" {
		err = errors.New("an operation of maintenance has no name")
	}
	if err != nil {
		b.fail(err)
		return
	}
	b.put(maintenanceKey(b.key[:0], m.Name), maintenanceV1{m.Began, m.Needs, m.Behind, m.Next,
		m.Waiting, m.Ended, m.Succeeded, m.Error, m.Failures, m.Due})
}

// validate returns an error if a number is negative.
func (m *Maintenance) validate() error {
	if m.Needs < 0 || m.Failures < 0 {
		return fmt.Errorf("operation %q needed others %d times and failed %d times", m.Name, m.Needs,
			m.Failures)
	}
	return nil
}

// Maintenance returns the states of all operations, in the order of their names. There are about
// ten.
func (s *Store) Maintenance() (all []Maintenance, err error) {
	err = scan(s.db, []byte{spaceMaintenance}, spaceEnd(spaceMaintenance),
		func(key, value []byte) (bool, error) {
			m, err := s.parseMaintenance(key, value)
			all = append(all, m)
			return true, err
		})
	return all, err
}

func (s *Store) parseMaintenance(key, value []byte) (Maintenance, error) {
	name, err := parseMaintenanceKey(key)
	if err != nil {
		return Maintenance{}, err
	}
	var v maintenanceV1
	if err := s.codec.decode(value, &v); err != nil {
		return Maintenance{}, fmt.Errorf("operation %q: %w", name, err)
	}
	m := Maintenance{name, v.Began, v.Needs, v.Behind, v.Next, v.Waiting, v.Ended, v.Succeeded,
		v.Error, v.Failures, v.Due}
	if err := m.validate(); err != nil {
		return Maintenance{}, fmt.Errorf("%w: %w", err, ErrCorrupt)
	}
	return m, nil
}

// checkMaintenance checks that the states of operations can be read, and that only a run that has
// begun needed others or is needed.
func checkMaintenance(c *checker) error {
	return c.space(spaceMaintenance, func(key, value []byte) error {
		m, err := c.s.parseMaintenance(key, value)
		switch {
		case err != nil:
			c.report("maintenance: %v", err)
		case !m.Began && (m.Needs > 0 || len(m.Behind) > 0):
			c.report("maintenance: operation %q has the state %+v", m.Name, m)
		}
		return nil
	})
}
