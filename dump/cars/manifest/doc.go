// Package manifest describes the manifest of an export of repositories as CARs.
//
// # Purpose
//
// A manifest says what an export has, so that a bulk loader can read it without opening a CAR: a
// line for each repository, in parts, and one object with the counts and the sums of the parts. The
// files of package dump/cars and the archives of package api/export have the same manifest.
//
// # Invariants
//
//  1. A line has a path, or the reason why the repository has none.
//  2. The path of a CAR follows from the DID alone, and has no character of the DID that leads out
//     of its directory.
//
// # Concurrency
//
// The package has values only. A Manifest belongs to one goroutine at a time.
//
// # Files
//
//	manifest.go  Manifest, Part   line.go  Line, PathOf, and why a repository has no CAR
package manifest
