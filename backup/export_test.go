package backup

import "context"

// ReadAll reads an object.
func ReadAll(ctx context.Context, d Destination, name string) ([]byte, error) {
	return readAll(ctx, d, name, objectBytesMax)
}
