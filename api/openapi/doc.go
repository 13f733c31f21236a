// Package openapi describes the routes of the public listener.
//
// # Purpose
//
// It has one table of the routes with their parameters and answers, and writes the table as an
// OpenAPI 3.1 document, from which clients can be generated.
//
// # Invariants
//
//  1. The table has the routes that package api answers, and no other: a test of api compares them,
//     and asks each for its example.
//  2. An answer has every field of its row that is not optional, and no field that its row lacks.
//
// # Concurrency
//
// Everything may be called by any goroutine.
//
// # Files
//
//	route.go     Route, Parameter, Field
//	routes.go    the table: queries
//	backlinks.go the table: queries for links
//	microcosm.go the table: methods of blue.microcosm
//	streams.go   the table: streams and what belongs to the server
//	document.go  the table as a document
//	example.go   Values, and the examples of routes about them
package openapi
