package cars

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"os"

	"cistern/objects"
)

// spool holds a CAR until its size and sum are known: in memory, or in a file without a name. It is
// used again for the next CAR.
type spool struct {
	dir    string
	memory []byte
	hash   hash.Hash
	size   int64
	file   *os.File // nil until a CAR does not fit into memory
	filed  bool     // this CAR is in file
}

func newSpool(dir string) *spool {
	return &spool{dir: dir, memory: make([]byte, 0, 64<<10), hash: sha256.New()}
}

// reset forgets the CAR.
func (s *spool) reset() error {
	s.memory, s.size = s.memory[:0], 0
	s.hash.Reset()
	if !s.filed {
		return nil
	}
	s.filed = false
	_, err := s.file.Seek(0, io.SeekStart)
	return errors.Join(err, s.file.Truncate(0))
}

// Write adds to the CAR.
func (s *spool) Write(p []byte) (int, error) {
	if len(s.memory)+len(p) > memoryBytes {
		if err := s.flush(); err != nil {
			return 0, err
		}
	}
	s.size += int64(len(p))
	_, _ = s.hash.Write(p) // a hash does not fail
	s.memory = append(s.memory, p...)
	return len(p), nil
}

// flush moves what is in memory to the file.
func (s *spool) flush() error {
	if s.file == nil {
		f, err := os.CreateTemp(s.dir, "cistern-export-*")
		if err != nil {
			return err
		}
		s.file = f
		if err := os.Remove(f.Name()); err != nil {
			return err
		}
	}
	s.filed = true
	_, err := s.file.Write(s.memory)
	s.memory = s.memory[:0]
	return err
}

// content returns the CAR. It is valid until reset.
func (s *spool) content() (objects.Content, error) {
	c := objects.Content{Reader: bytes.NewReader(s.memory), Size: s.size,
		Sum: objects.Sum(s.hash.Sum(nil))}
	if s.filed {
		if err := s.flush(); err != nil {
			return c, err
		}
		c.Reader = io.NewSectionReader(s.file, 0, s.size)
	}
	return c, nil
}

// close frees the file.
func (s *spool) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
