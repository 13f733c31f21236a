package main

import (
	"path/filepath"

	"cistern/objects"
)

// placeOf names a destination for the daemon, without credentials: a directory by its absolute
// path.
func placeOf(to objects.Destination) string {
	if dir, ok := to.(*objects.Directory); ok {
		return absolute(dir.String())
	}
	return to.String()
}

// absolute returns the absolute path of a file, or its name if the working directory is unknown.
func absolute(name string) string {
	if path, err := filepath.Abs(name); err == nil {
		return path
	}
	return name
}
