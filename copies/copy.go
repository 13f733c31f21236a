package copies

import (
	"fmt"
	"strings"
)

// Kind is the kind of copy that a command makes from a checkpoint.
type Kind string

const (
	Backup Kind = "backup"
	Export Kind = "export"
)

// kinds are all kinds, in the order in which they are shown.
var kinds = [...]Kind{Backup, Export}

// Limits of what a command sends, in bytes. A Row with texts of these lengths takes less than
// 4 KiB.
const (
	// DestinationMax bounds the name of a destination: a path in Linux has at most 4096 bytes, and the
	// usual name of a bucket and a prefix some 100.
	DestinationMax = 1024
	// GenerationMax bounds the name of a backup, which has some 40 bytes.
	GenerationMax = 128
	// ErrorMax bounds an error.
	ErrorMax = 1024
)

// Statement is what a command states when it asks for a checkpoint.
type Statement struct {
	Kind        Kind
	Destination string // a path or s3://BUCKET/PREFIX, without credentials
}

// Validate returns an error that names the first mistake.
func (s Statement) Validate() error {
	if s.Kind != Backup && s.Kind != Export {
		return fmt.Errorf("kind %.40q: want backup or export", s.Kind)
	}
	if s.Destination == "" {
		return fmt.Errorf("a %s needs a destination", s.Kind)
	}
	if _, rest, ok := strings.Cut(s.Destination, "://"); ok {
		host, _, _ := strings.Cut(rest, "/")
		if strings.ContainsAny(host, "@?") {
			return fmt.Errorf("destination: want a name without credentials, such as s3://BUCKET/PREFIX")
		}
	}
	return check("destination", s.Destination, DestinationMax)
}

// Result is what a command reports.
type Result struct {
	// Complete means that the destination has the whole copy.
	Complete   bool
	Generation string // the name of a complete backup; "": the destination has no names
	Bytes      int64  // of a complete copy
	// Error says what failed; "": nothing did. A copy can be complete and have an error, such as of
	// older backups that could not be deleted.
	Error string
}

// Validate returns an error that names the first mistake.
func (r Result) Validate() error {
	switch {
	case r.Bytes < 0:
		return fmt.Errorf("bytes %d: want 0 or more", r.Bytes)
	case !r.Complete && r.Error == "":
		return fmt.Errorf("a copy that is not complete needs an error")
	case !r.Complete && (r.Generation != "" || r.Bytes != 0):
		return fmt.Errorf("a copy that is not complete has neither a generation nor bytes")
	}
	if err := check("generation", r.Generation, GenerationMax); err != nil {
		return err
	}
	return check("error", r.Error, ErrorMax)
}
