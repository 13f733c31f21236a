package store

// Traffic is what was received from hosts in one day. The store keeps it for package condition.
type Traffic struct {
	Day   int // as in 20260501
	Bytes int64
}

// trafficV1 is Traffic on disk, a row of meta.
type trafficV1 struct {
	Day   int   `cbor:"1,keyasint"`
	Bytes int64 `cbor:"2,keyasint"`
}

// PutTraffic replaces what was received.
func (b *control) PutTraffic(t Traffic) { b.put(metaKey(metaTraffic), trafficV1(t)) }

// Traffic returns what PutTraffic wrote last, the zero Traffic if it never did.
func (s *Store) Traffic() (Traffic, error) {
	return s.traffic(s.db)
}

func (s *Store) traffic(r reader) (Traffic, error) {
	var row trafficV1
	_, err := s.metaRow(r, metaTraffic, &row)
	return Traffic(row), err
}
