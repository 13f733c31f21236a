package store

import "fmt"

// DescribeRetry states when to ask an account's host again which collections the account has. The
// host has not answered yet, so it is unknown whether a signal names one of them. The account has
// no row yet.
type DescribeRetry struct {
	Due   int64  `cbor:"1,keyasint,omitempty"` // unix seconds
	Tries uint32 `cbor:"2,keyasint,omitempty"` // number of requests so far
}

// PutDescribeRetry writes when to ask about an account.
func (b *control) PutDescribeRetry(did string, d DescribeRetry) {
	b.put(describeKey(b.key[:0], did), d)
}

// DropDescribeRetry deletes the retry of an account.
func (b *control) DropDescribeRetry(did string) { b.delete(describeKey(b.key[:0], did)) }

// DescribeRetries returns the accounts to ask about, by DID.
func (s *Store) DescribeRetries() (map[string]DescribeRetry, error) {
	all := map[string]DescribeRetry{}
	lower, upper := []byte{spaceDescribe}, spaceEnd(spaceDescribe)
	err := scan(s.db, lower, upper, func(key, value []byte) (bool, error) {
		did, err := parseDescribeKey(key)
		if err != nil {
			return false, err
		}
		var d DescribeRetry
		if err := s.codec.decode(value, &d); err != nil {
			return false, fmt.Errorf("describe retry of %s: %w", did, err)
		}
		all[did] = d
		return true, nil
	})
	return all, err
}
