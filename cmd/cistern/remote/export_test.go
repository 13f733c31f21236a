package remote

// HostRow returns a row of /hosts as it is shown in a table and alone.
func HostRow(line []byte) (cells []string, facts [][2]string, err error) {
	var r hostRow
	err = unmarshalRow(line, &r)
	return r.cells(), r.facts(), err
}

// Period writes seconds as the period of an operation.
func Period(seconds float64) string { return period(seconds) }
