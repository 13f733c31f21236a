package backup_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cistern/backup"
	"cistern/objects"
)

// TestErrorsNameTheDestination: the error of a backup has the destination and each cause once, in one
// line, and stays the error that it was.
func TestErrorsNameTheDestination(t *testing.T) {
	t.Parallel()
	full := errors.New("no space left on device")
	err := backup.DestinationError("s3://b/p", errors.Join(fmt.Errorf("put tables/1: %w", full), fmt.Errorf("put locks/2: %w", full), fs.ErrPermission))
	if want := "destination s3://b/p: put tables/1: no space left on device; permission denied"; err.Error() != want || !errors.Is(err, fs.ErrPermission) || !errors.Is(err, full) {
		t.Errorf("%v, want %s", err, want)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	to := objects.NewDirectory(filepath.Join(file, "backups"))
	_, err = backup.Run(t.Context(), backup.Options{Destination: to, Source: backup.Source{Dir: t.TempDir()}})
	if err == nil || !strings.HasPrefix(err.Error(), "destination "+to.String()+": ") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
}
