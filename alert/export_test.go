package alert

// Limits that tests count with.
const (
	SubjectsMax = subjectsMax
	QueueMax    = queueMax
	SendsMax    = sendsMax
)
