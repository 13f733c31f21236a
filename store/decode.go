package store

import "math"

// fieldReader reads a map of numbered fields as mapWriter writes it. Anything else makes it odd:
// what it gave is to be thrown away, and the decoder to be asked.
type fieldReader struct {
	b   string
	odd bool
}

// head reads one head; of another major type than wanted it is odd.
func (f *fieldReader) head(major byte) uint64 {
	if len(f.b) == 0 || f.b[0]&0xe0 != major {
		f.odd = true
		return 0
	}
	n, size := uint64(f.b[0]&0x1f), 0
	switch n {
	case 24, 25, 26, 27:
		size = 1 << (n - 24)
	}
	if n > 27 || len(f.b) <= size {
		f.odd = true
		return 0
	}
	if size > 0 {
		n = 0
		for _, c := range []byte(f.b[1 : 1+size]) {
			n = n<<8 | uint64(c)
		}
	}
	f.b = f.b[1+size:]
	return n
}

func (f *fieldReader) uint(limit uint64) uint64 {
	n := f.head(cborUint)
	f.odd = f.odd || n > limit
	return n
}

func (f *fieldReader) int() int64 {
	if len(f.b) > 0 && f.b[0]&0xe0 == cborNeg {
		n := f.head(cborNeg)
		f.odd = f.odd || n > math.MaxInt64
		return ^int64(n)
	}
	return int64(f.uint(math.MaxInt64))
}

// text shares the memory of the row.
func (f *fieldReader) text(major byte) string {
	n := f.head(major)
	if f.odd || n > uint64(len(f.b)) {
		f.odd = true
		return ""
	}
	s := f.b[:n]
	f.b = f.b[n:]
	return s
}

func (f *fieldReader) bool() bool {
	if len(f.b) == 0 || f.b[0] != cborTrue {
		f.odd = true
		return false
	}
	f.b = f.b[1:]
	return true
}

// fields calls fn with the number of each, which must read it.
func (f *fieldReader) fields(fn func(k uint64)) {
	last := uint64(0)
	for n := f.head(cborMap); n > 0 && !f.odd; n-- {
		k := f.uint(math.MaxUint8)
		f.odd = f.odd || k <= last
		last = k
		fn(k)
	}
}

// decodeRepo reads repoV1 into r, whose DID is set.
func (c codec) decodeRepo(b []byte, r *Repo) error {
	if len(b) > 0 && b[0] == valueVersion {
		f := fieldReader{b: string(b[1:])}
		f.repo(r)
		if !f.odd && f.b == "" {
			return nil
		}
		*r = Repo{DID: r.DID}
	}
	return c.decode(b, r)
}

func (f *fieldReader) repo(r *Repo) {
	f.fields(func(k uint64) {
		switch k {
		case 1:
			r.State = State(f.uint(math.MaxUint8))
		case 2:
			r.Status = Status(f.uint(math.MaxUint8))
		case 3:
			r.Tracked = Why(f.uint(math.MaxUint8))
		case 4:
			r.Attempt = f.uint(math.MaxUint64)
		case 5:
			r.Verified = Verified(f.uint(math.MaxUint8))
		case 6:
			r.Ordinal = Ordinal(f.uint(math.MaxUint64))
		case 7:
			r.NextBlock = uint32(f.uint(math.MaxUint32))
		case 8:
			r.Rev = f.text(cborText)
		case 9:
			data := f.text(cborBytes)
			f.odd = f.odd || len(data) != len(r.Data)
			copy(r.Data[:], data)
		case 10:
			r.Commit = []byte(f.text(cborBytes))
		case 11:
			r.Records = f.int()
		case 12:
			r.Blocks = f.int()
		case 13:
			r.PDS = f.text(cborText)
		case 14:
			r.Handle = f.text(cborText)
		case 15:
			r.Key = f.text(cborText)
		default:
			f.repoWork(k, r)
		}
	})
}

// repoWork reads the fields of a row that tell of the work on it.
func (f *fieldReader) repoWork(k uint64, r *Repo) {
	switch k {
	case 16:
		f.pending(&r.Pending)
	case 17:
		f.retry(&r.Retry)
	case 18:
		r.SeenRev = f.text(cborText)
	case 19:
		r.Missing = uint32(f.uint(math.MaxUint32))
	case 20:
		r.Updated = f.int()
	case 21:
		r.AccountTime = f.int()
	case 22:
		r.IdentityTime = f.int()
	case 23:
		r.Resolved = f.int()
	case 24:
		r.Breaks = uint32(f.uint(math.MaxUint32))
	case 25:
		r.Broken = f.int()
	case 26:
		r.Recheck = f.bool()
	case 27:
		r.Listed = uint32(f.uint(math.MaxUint32))
	case 28:
		r.Hidden = uint32(f.uint(math.MaxUint32))
	case 29:
		r.Collections = uint32(f.uint(math.MaxUint32))
	case 30:
		r.Torn = f.bool()
	case 31:
		r.Filter = uint32(f.uint(math.MaxUint32))
	case 32:
		r.Sweep = f.bool()
	case 33:
		r.Lacks = f.bool()
	case 34:
		r.Shelved = f.int()
	default:
		f.odd = true
	}
}

func (f *fieldReader) pending(p *PendingKey) {
	f.fields(func(k uint64) {
		switch k {
		case 1:
			p.Host = uint32(f.uint(math.MaxUint32))
		case 2:
			p.Priority = uint8(f.uint(math.MaxUint8))
		case 3:
			p.Enqueue = f.uint(math.MaxUint64)
		default:
			f.odd = true
		}
	})
}

func (f *fieldReader) retry(p *Retry) {
	f.fields(func(k uint64) {
		switch k {
		case 1:
			p.Kind = ErrorKind(f.uint(math.MaxUint8))
		case 2:
			p.Count = uint32(f.uint(math.MaxUint32))
		case 3:
			p.Next = f.int()
		case 4:
			p.Since = f.int()
		case 5:
			p.Error = f.text(cborText)
		default:
			f.odd = true
		}
	})
}

// decodeEntry reads entryV1.
func (c codec) decodeEntry(b []byte, e *entryV1) error {
	if len(b) > 0 && b[0] == valueVersion {
		f := fieldReader{b: string(b[1:])}
		f.entry(e)
		if !f.odd && f.b == "" {
			return nil
		}
		*e = entryV1{}
	}
	return c.decode(b, e)
}

func (f *fieldReader) entry(e *entryV1) {
	f.fields(func(k uint64) {
		switch k {
		case 1:
			e.Kind = entryKind(f.uint(math.MaxUint8))
		case 2:
			e.Time = f.int()
		case 3:
			e.DID = []byte(f.text(cborBytes))
		case 4:
			e.Live = f.bool()
		case 5:
			e.Rev = f.text(cborText)
		case 6:
			e.Ordinal = Ordinal(f.uint(math.MaxUint64))
		case 7:
			e.Count = uint32(f.uint(math.MaxUint32))
		case 8:
			f.ops(e)
		case 9:
			e.Status = Status(f.uint(math.MaxUint8))
		case 10:
			e.Handle = f.text(cborText)
		case 11:
			e.PDS = f.text(cborText)
		case 12:
			e.First = uint32(f.uint(math.MaxUint32))
		default:
			f.odd = true
		}
	})
}

func (f *fieldReader) ops(e *entryV1) {
	n := f.head(cborArray)
	if f.odd = f.odd || n > uint64(len(f.b)); f.odd {
		return
	}
	e.Ops = make([]entryOp, n)
	for i := range e.Ops {
		op := &e.Ops[i]
		f.odd = f.odd || f.head(cborArray) != 3
		op.Action = Action(f.uint(math.MaxUint8))
		op.Path = []byte(f.text(cborBytes))
		op.Block = uint32(f.uint(math.MaxUint32))
	}
}
