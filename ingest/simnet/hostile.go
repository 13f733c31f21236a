package simnet

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"net/http"
	"slices"
	"strconv"
	"time"

	"cistern/ingest/repo"
)

// answer sends the answer of a fault that needs no CAR.
func (in *Injection) answer(w http.ResponseWriter, r *http.Request) {
	f := in.fault
	f.runHook()
	switch f.Kind {
	case RateLimited:
		f.setRetry(w.Header())
		writeError(w, http.StatusTooManyRequests, "RateLimitExceeded", "Rate Limit Exceeded")
	case ServerError:
		if f.RetryAfter > 0 {
			f.setRetry(w.Header())
		}
		writeError(w, cmp.Or(f.Status, http.StatusServiceUnavailable),
			"InternalServerError", "Internal Server Error")
	case Unavailable:
		writeUnavailable(w, cmp.Or(f.Account, Deleted), r.URL.Query().Get("did"))
	case Hang:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case Garbage:
		w.Header().Set("Content-Type", carType)
		_, _ = w.Write(bytes.Repeat([]byte("<html>\xff\x00 no repository here"), 200))
	case Redirect:
		http.Redirect(w, r, cmp.Or(f.Location, "http://169.254.169.254/latest/meta-data/"),
			http.StatusFound)
	case RedirectLoop:
		http.Redirect(w, r, r.URL.String(), http.StatusFound)
	case GzipBomb:
		f.bomb(w)
	default:
		writeError(w, http.StatusNotImplemented, "NotImplemented", f.Kind.String())
	}
}

func (f Fault) runHook() {
	if f.Hook != nil {
		f.Hook()
	}
}

func (f Fault) setRetry(h http.Header) {
	at := time.Now().Add(f.RetryAfter)
	switch f.RetryAs {
	case RetrySeconds:
		h.Set("Retry-After", strconv.Itoa(int(f.RetryAfter.Round(time.Second)/time.Second)))
	case RetryDate:
		h.Set("Retry-After", at.UTC().Format(http.TimeFormat))
	case RateLimitReset:
		h.Set("RateLimit-Limit", "3000")
		h.Set("RateLimit-Remaining", "0")
		h.Set("RateLimit-Reset", strconv.FormatInt(at.Unix(), 10))
	}
}

// asked returns the shortest wait of a client that obeys: two of the forms name a second that has
// already begun.
func (f Fault) asked() time.Duration {
	switch {
	case f.Kind != RateLimited && f.Kind != ServerError, f.RetryAs == RetryUnsaid:
		return 0
	case f.RetryAs == RetrySeconds:
		return f.RetryAfter.Round(time.Second)
	}
	return f.RetryAfter - time.Second
}

// bomb sends a well-formed CAR that repeats one block. Compressed, it has about a thousandth of its
// size.
func (f Fault) bomb(w http.ResponseWriter) {
	const blockBytes = 1 << 20
	junk := block{data: make([]byte, blockBytes)}
	junk.cid = repo.HashCID(junk.data)
	w.Header().Set("Content-Type", carType)
	w.Header().Set("Content-Encoding", "gzip")
	if _, err := w.Write(gzipMember(appendCARHeader(nil, junk.cid))); err != nil {
		return
	}
	member := gzipMember(appendCARBlock(nil, junk))
	for sent := int64(0); sent < cmp.Or(f.Bytes, 4<<30); sent += blockBytes {
		if _, err := w.Write(member); err != nil {
			return
		}
	}
}

func gzipMember(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(b) // a bytes.Buffer does not fail
	_ = z.Close()
	return out.Bytes()
}

// sendCAR sends a CAR with the fault of the injection; a nil injection has no fault.
func (in *Injection) sendCAR(w http.ResponseWriter, r *http.Request, car []byte) {
	w.Header().Set("Content-Type", carType)
	if in == nil {
		_, _ = w.Write(car) // a client that left is not an error
		return
	}
	f := in.fault
	cut := min(cmp.Or(f.Bytes, int64(len(car)/2)), int64(len(car)))
	switch f.Kind {
	case Truncated:
		_, _ = w.Write(car[:cut])
	case Reset:
		_, _ = w.Write(car[:cut])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case SlowDrip:
		f.drip(w, r, car)
	case Mutated:
		_, _ = w.Write(f.Mutate(car))
	case Gate:
		if f.Delay > 0 && !pause(r, f.Delay) {
			return
		}
		f.runHook()
		_, _ = w.Write(car)
	default:
		_, _ = w.Write(car)
	}
}

func (f Fault) drip(w http.ResponseWriter, r *http.Request, car []byte) {
	for piece := range slices.Chunk(car, int(cmp.Or(f.Bytes, 16))) {
		if _, err := w.Write(piece); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		if !pause(r, cmp.Or(f.Delay, 50*time.Millisecond)) {
			return
		}
	}
}

// faultyCAR returns the account's CAR with one mistake. Kinds that do not concern the content leave
// it correct.
func (q read) faultyCAR(kind FaultKind) []byte {
	a := q.a
	if kind == WrongDID {
		return a.net.other(a).CAR()
	}
	s, root := a.faultySnapshot(kind)
	blocks := faultyBlocks(kind, s.blocks())
	blocks[0] = root
	return encodeCAR(root.cid, blocks)
}

// faultySnapshot returns the account's state and the commit that the host shows for it.
func (r *repository) faultySnapshot(kind FaultKind) (s *snapshot, root block) {
	r.mu.Lock()
	s, prev, key := r.load(), r.prev, r.key
	r.mu.Unlock()
	root = s.root
	switch kind {
	case StaleRev:
		if prev != nil {
			return prev, prev.root
		}
		root = commitBlock(s.did, shiftRev(s.rev, -time.Hour), s.data, key.sign)
	case FutureRev:
		root = commitBlock(s.did, tid(time.Now().Add(24*time.Hour), r.index), s.data, key.sign)
	case BadSignature:
		foreign := newSigner(r.net.derive("stranger", r.index, 0), key.p256 != nil)
		root = commitBlock(s.did, s.rev, s.data, foreign.sign)
	case HighS:
		root = commitBlock(s.did, s.rev, s.data, func(b []byte) []byte { return key.flipS(key.sign(b)) })
	}
	return s, root
}

// faultyBlocks changes one block after the first block, which is the commit.
func faultyBlocks(kind FaultKind, blocks []block) []block {
	switch kind {
	case WrongHash:
		if i := pickBlock(blocks, true); i > 0 {
			blocks[i].data = bytes.Clone(blocks[i].data)
			blocks[i].data[len(blocks[i].data)/2] ^= 1
		}
	case MissingRecord, MissingNode:
		if i := pickBlock(blocks, kind == MissingRecord); i > 0 {
			blocks = slices.Delete(blocks, i, i+1)
		}
	}
	return blocks
}

// pickBlock returns the index of the middle record or node block, 0 (the commit) if there is none.
func pickBlock(blocks []block, leaf bool) int {
	var at []int
	for i, b := range blocks[1:] {
		if b.leaf == leaf {
			at = append(at, i+1)
		}
	}
	if len(at) == 0 {
		return 0
	}
	return at[len(at)/2]
}

// other returns the account after a.
func (n *Network) other(a *Account) *Account {
	accounts := n.Accounts()
	return accounts[(a.index+1)%len(accounts)]
}

// pause waits, or returns false if the client gave up first.
func pause(r *http.Request, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Context().Done():
		return false
	}
}
