package objects

import "time"

// The limits that tests reach.
const (
	ErrorTextMax   = errorTextMax
	AnswerBytesMax = answerBytesMax
)

// Narrow gives a destination smaller limits: the timeout of a request, and the names and pages of
// one listing.
func Narrow(d Destination, timeout time.Duration, names, pages int) {
	switch d := d.(type) {
	case *Directory:
		d.names = names
	case *S3:
		d.timeout, d.names, d.pages = timeout, names, pages
	}
}
