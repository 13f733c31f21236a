package alert

import "time"

const (
	// lookEvery is the default of Options.Every.
	lookEvery = 10 * time.Second
	// subjectsMax bounds the subjects of a Board, at about 500 bytes each: half a megabyte.
	subjectsMax = 1000
	// errorBytesMax bounds the error of a subject.
	errorBytesMax = 256
	// nameBytesMax bounds the name of a subject.
	nameBytesMax = 256
	// queueMax bounds the messages that wait to be sent.
	queueMax = 100
	// sendsMax bounds the attempts of one message. The waits between them double from sendBase: 5 s,
	// 10 s, and so on, 21 minutes together.
	sendsMax = 9
	sendBase = 5 * time.Second
	// sendTimeout bounds one attempt.
	sendTimeout = 30 * time.Second
)
