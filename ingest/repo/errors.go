package repo

import (
	"errors"
	"fmt"
)

// ErrInvalid marks bytes from outside that are not what the protocol demands. They are
// dropped and counted, never coerced; asking the same host again may yield better ones.
var ErrInvalid = errors.New("invalid repository data")

// ErrTooLarge is the ErrInvalid of a repository beyond CAROptions.BytesMax or BlocksMax.
var ErrTooLarge = fmt.Errorf("too large: %w", ErrInvalid)
