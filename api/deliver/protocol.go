package deliver

import (
	"context"
	"errors"
	"fmt"

	"cistern/filter"
)

// protocol has the differences between the kinds of streams, apart from their formats.
type protocol struct {
	// subprotocols are the WebSocket subprotocols that are echoed if a consumer offers them.
	subprotocols []string
	// messageBytesMax bounds a message of the consumer. Default: messages are not kept, as none is
	// accepted.
	messageBytesMax int64
	// locate decides where a stream begins. It runs before the handshake, so that a consumer gets
	// every event that is published after the handshake's answer.
	locate func(ctx context.Context, log Log, s *subscription) error
	// message reads a message of the consumer. A nil change means that the message changes nothing.
	// The error is errMessage.
	message func(kind int, body []byte) (*change, error)
	// confirm returns the message that answers a change, which holds for the events from id on.
	// Default: changes are not answered.
	confirm func(id uint64) []byte
	// failure returns the message that names the error with which a stream ends, before the close
	// frame. If it returns nil, only the close frame states the error.
	failure func(name, message string) []byte
	// breaksOff means that a stream ends by closing its connection: to the clients of the protocol,
	// a close frame is the end for ever.
	breaksOff bool
}

// change replaces what a consumer has asked for.
type change struct {
	filter *filter.Events
	most   uint32 // bytes of a message; 0: any number
	held   int64  // bytes reserved for the filter
}

// errMessage means that a consumer sent a message that its stream does not accept.
var errMessage = errors.New("invalid message")

// invalidMessage returns errMessage with a sentence that names the wrong value.
func invalidMessage(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errMessage, fmt.Errorf(format, args...))
}

// noFailure is the failure of protocols without error messages.
func noFailure(string, string) []byte { return nil }
