package backup

// Asked returns how many borrowers wait.
func (l *Lender) Asked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.asked)
}

// The limits that tests reach.
const (
	FilesMax = filesMax
)

// The parsers of what a destination has.
var (
	ParseManifest = parseManifest
	ParseMarker   = parseMarker
)

// DestinationError is the error of a backup to a destination.
func DestinationError(destination string, err error) error {
	return &destinationError{destination, err}
}
