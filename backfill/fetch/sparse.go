package fetch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"cistern/backfill/hosts"
	"cistern/filter"
	"cistern/ingest/identity"
	"cistern/ingest/repo"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Strategy is how a repository is fetched when the filter wants only some collections.
type Strategy uint8

const (
	// StrategyAuto fetches the wanted parts, unless the whole is cheaper.
	StrategyAuto Strategy = iota
	// StrategySparse fetches the wanted parts, unless the host cannot send them.
	StrategySparse
	// StrategyFull fetches the whole.
	StrategyFull
)

// strategies are the names of strategies.
var strategies = [...]string{"auto", "sparse", "full"}

// ParseStrategy reads auto, sparse or full.
func ParseStrategy(s string) (Strategy, error) {
	if i := slices.Index(strategies[:], s); i >= 0 {
		return Strategy(i), nil
	}
	return 0, fmt.Errorf("strategy %q is not one of %s", s, strings.Join(strategies[:], ", "))
}

const (
	repoMethod   = "com.atproto.sync.getRepo"
	proofMethod  = "com.atproto.sync.getRecord"
	blocksMethod = "com.atproto.sync.getBlocks"

	// nameBlockNotFound is the error of the lexicon. The reference PDS sends a bad request instead.
	nameBlockNotFound = "BlockNotFound"
)

var (
	// errWhole: a part is not worth it, or does not fit into memory.
	errWhole = errors.New("the whole repository is cheaper")
	// errOmitted: the host did not send what it was asked for.
	errOmitted = fmt.Errorf("the host left out blocks that its signed tree names: %w", repo.ErrInvalid)
)

// sparse gathers the wanted part of one repository.
type sparse struct {
	*session
	part     *repo.Partial
	received int64 // bytes of all answers, before decompression
	began    time.Time
	path     string
	ranges   int // of wanted keys
}

// sparse fetches the wanted part. A proof of some path brings the signed commit and a way into the
// tree. Further blocks are requested by their CIDs: first the nodes that lead to wanted keys, then
// the records. If sparse returns neither a copy nor an error, the whole must be fetched. way is the
// label of the metric.
func (s *session) sparse(ctx context.Context) (part records, way string, err error) {
	p := s.newSparse()
	if p == nil {
		return nil, wayFull, nil
	}
	err = p.run(ctx)
	s.c.metrics.parts.Add(float64(p.received))
	if err == nil {
		err = s.walkAll(p.part)
	}
	if err == nil {
		s.signal = s.signal || p.part.Sampled()
		s.c.wholeOnly.gathered(s.to.HostID)
		return p.part, waySparse, nil
	}
	s.forgetMemory()
	switch {
	case errors.Is(err, errWhole), errors.Is(err, repo.ErrPartialBytes):
		return nil, wayFull, nil
	case errors.Is(err, ErrTimeout), hosts.QueriesSpent(err), s.fallsBack(ctx, err):
		// After many requests that took too long or spent a quota, one may do.
		s.c.opts.Logger.Debug("fetching the whole, because its parts are unavailable",
			"did", s.to.DID, "host", s.to.Ident.PDS, "err", err)
		return nil, wayFallback, nil
	}
	if p.part.Blocks() > 0 && ctx.Err() == nil && byHost(err) {
		s.cutShort(p, err)
	}
	return nil, "", err
}

// cutShort notes the failure of the host that ended the gathering of a part that had begun.
func (s *session) cutShort(p *sparse, err error) {
	s.c.wholeOnly.cut(s.to.HostID, p.began, s.c.opts.Now())
	var answer *hosts.AnswerError
	if errors.As(err, &answer) && answer.Code == http.StatusTooManyRequests {
		s.c.wholeOnly.wholeNext(s.to.DID)
	}
}

// fallsBack reports whether getRepo may succeed instead: the host answered, and reports neither
// that the account is unavailable nor that it must not be asked now.
func (s *session) fallsBack(ctx context.Context, err error) bool {
	var answer *hosts.AnswerError
	if errors.As(err, &answer) {
		if answer.Code == http.StatusNotImplemented ||
			answer.Code == http.StatusNotFound && !ofMethod(answer.Name) {
			s.c.wholeOnly.add(s.to.HostID, s.c.opts.Now())
		}
		if answer.Code == http.StatusNotImplemented || answer.Code == http.StatusInternalServerError {
			return true
		}
	}
	return ctx.Err() == nil && byHost(err) && noCopy(err) && !errors.Is(err, repo.ErrSignature)
}

// byHost reports whether the host may be at fault: it does not report the account as unavailable,
// and neither the directory nor the caller failed.
func byHost(err error) bool {
	var answer *hosts.AnswerError
	if errors.As(err, new(*heldError)) || errors.As(err, new(*hosts.ResolveError)) {
		return false
	}
	return !errors.As(err, &answer) || !unavailable(answer)
}

// unavailable reports whether the answer means that the host does not serve the repository.
func unavailable(answer *hosts.AnswerError) bool {
	if answer.Code >= http.StatusInternalServerError || answer.Code == http.StatusTooManyRequests {
		return false
	}
	switch answer.Name {
	case "RepoNotFound", "RepoTakendown", "RepoSuspended", "RepoDeactivated":
		return true
	}
	return false
}

// noCopy reports whether the host answered, and the answer is neither a copy nor a request to wait.
func noCopy(err error) bool {
	var answer *hosts.AnswerError
	switch {
	case errors.As(err, new(*hosts.BusyError)):
		return false
	case errors.As(err, &answer):
		return answer.Code < http.StatusInternalServerError && answer.Code != http.StatusTooManyRequests
	case errors.Is(err, ErrNotCAR), errors.Is(err, repo.ErrInvalid) && !Broken(err):
		return true
	}
	return errors.Is(err, hosts.ErrRedirect) || errors.Is(err, identity.ErrPrivateAddress) ||
		errors.Is(err, ErrSpool) || errors.Is(err, ErrIndex)
}

// ofMethod reports whether the lexicon of the methods defines the error, whatever its status: then
// the host supports them.
func ofMethod(name string) bool {
	return strings.HasPrefix(name, "Repo") || name == "RecordNotFound" || name == nameBlockNotFound
}

// newSparse returns nil if the whole is wanted, or is likely to be cheaper. A repository whose last
// attempts failed is fetched whole: that is one request, where parts are many.
func (s *session) newSparse() *sparse {
	req, c := s.req, s.c
	wanted := req.Filter.Ranges(false)
	switch {
	case c.opts.Strategy == StrategyFull, wanted == nil, req.Filter.StoresAll(),
		req.Failures >= sparseTriesMax:
		return nil
	case c.wholeOnly.has(req.HostID, c.opts.Now()):
		return nil
	case c.opts.Strategy == StrategyAuto && (req.Held.small() || !req.Host.Spares()):
		return nil
	case c.wholeOnly.takeWhole(req.DID):
		return nil
	}
	p := &sparse{session: s, began: c.opts.Now(), path: probePath(wanted[0]), ranges: len(wanted)}
	p.part = repo.NewPartial(repo.PartialOptions{
		Wanted:   keyRanges(wanted),
		Sample:   req.signalRanges(),
		BytesMax: c.opts.RepoMemoryBytes,
		Grow:     s.keep,
	})
	return p
}

// small reports whether all of the repository was held when it was fetched last, and was little.
func (h *Held) small() bool {
	if h == nil || h.Records > sparseRecordsMin {
		return false
	}
	old, err := h.Filter()
	return err == nil && (old.WantsAll() || old.StoresAll())
}

// signalRanges are the keys that show whether there is a record of a signal, where that matters.
func (req *Request) signalRanges() []repo.Range {
	if !req.OnSignal {
		return nil
	}
	signals, err := filter.Compile(filter.Config{Collections: req.Filter.Signals()})
	if err != nil { // they were compiled before
		return nil
	}
	return keyRanges(signals.Ranges(false))
}

func keyRanges(ranges []filter.Range) []repo.Range {
	out := make([]repo.Range, len(ranges))
	for i, r := range ranges {
		out[i] = repo.Range(r)
	}
	return out
}

// probePath returns a path in a range, or right behind it. A collection of one record often has
// this key.
func probePath(r filter.Range) string {
	const rkey = "/self"
	name := strings.TrimSuffix(string(r.Lower), "/")
	for _, tail := range []string{"", "a", "a.a"} {
		if _, err := syntax.ParseNSID(name + tail); err == nil {
			return name + tail + rkey
		}
	}
	return name + rkey
}

// run gathers the part. If the repository changes meanwhile, nodes of the old tree may be gone:
// then a newer proof is fetched, and the received blocks are kept.
func (s *sparse) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, min(sparseTimeMax, s.c.opts.FetchTimeout), ErrTimeout)
	defer cancel()
	var err error
	for range sparseRootsMax {
		last := s.commit.Data
		if perr := s.probe(ctx); perr != nil {
			return perr
		}
		if err != nil && s.commit.Data == last {
			return err
		}
		if err = s.gather(ctx); err == nil || !withheld(err) {
			return err
		}
	}
	return err
}

// withheld reports whether the host does not have the blocks, or does not send them.
func withheld(err error) bool {
	var answer *hosts.AnswerError
	return errors.Is(err, errOmitted) || errors.As(err, &answer) &&
		(answer.Code == http.StatusBadRequest && !strings.HasPrefix(answer.Name, "Repo") ||
			answer.Name == nameBlockNotFound)
}

// probe asks for the proof of a path, and takes the signed commit and what else of it is of use.
func (s *sparse) probe(ctx context.Context) error {
	collection, rkey, _ := strings.Cut(s.path, "/")
	query := "&collection=" + url.QueryEscape(collection) + "&rkey=" + url.QueryEscape(rkey)
	return s.request(ctx, proofMethod, query, proofBlocksMax, func(car *repo.CAR) error {
		block, ok, err := car.Block(car.Root())
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("the commit %s is not in the proof: %w", car.Root(), repo.ErrInvalid)
		}
		if err := s.verifyCommit(ctx, block); err != nil {
			return err
		}
		s.part.Plant(s.commit.Data)
		for more := true; more; {
			missing, err := s.part.Missing(nil)
			if err != nil {
				return err
			}
			if more, err = s.insert(car, missing); err != nil {
				return err
			}
		}
		return nil
	})
}

// gather asks for what is missing until nothing is.
func (s *sparse) gather(ctx context.Context) error {
	for skipped := s.req.Held == nil; ; {
		missing, err := s.part.Missing(nil)
		if err == nil && s.part.Mapped() && !skipped {
			skipped = true
			if err = s.req.Held.Skip(s.part); err != nil {
				return &heldError{err}
			}
			missing, err = s.part.Missing(nil)
		}
		if err != nil || len(missing) == 0 {
			return err
		}
		if s.c.opts.Strategy == StrategyAuto && s.wasteful(len(missing)) {
			return errWhole
		}
		for ids := range slices.Chunk(missing, blocksPerAsk) {
			if err := s.blocks(ctx, ids); err != nil {
				return err
			}
		}
	}
}

// wasteful reports whether fetching the whole is likely to cost less than the missing blocks: a
// small repository is one answer, and so is one of which most is wanted. The estimate of the wanted
// share is useless while hardly more subtrees are left to look into than ranges have ends.
func (s *sparse) wasteful(missing int) bool {
	mapped := s.part.Mapped()
	if s.part.Layer() <= sparseLayerMin {
		return !mapped || missing > blocksPerAsk
	}
	inside, outside := s.part.Guess()
	if mapped {
		return float64(missing) > (inside+outside)/2
	}
	return missing > sparseGuessMin+2*s.ranges && inside > outside
}

func (s *sparse) blocks(ctx context.Context, ids []repo.CID) error {
	var query []byte
	for _, id := range ids {
		query = id.AppendText(append(query, "&cids="...))
	}
	return s.request(ctx, blocksMethod, string(query), len(ids), func(car *repo.CAR) error {
		if _, err := s.insert(car, ids); err != nil {
			return err
		}
		for _, id := range ids {
			if _, ok, err := car.Block(id); err != nil || !ok {
				return errors.Join(err, errOmitted)
			}
		}
		return nil
	})
}

// insert takes the blocks that are there.
func (s *sparse) insert(car *repo.CAR, ids []repo.CID) (some bool, err error) {
	for _, id := range ids {
		block, ok, err := car.Block(id)
		if err != nil {
			return some, err
		}
		if !ok {
			continue
		}
		if err := s.part.Insert(id, block); err != nil {
			return some, err
		}
		some = true
	}
	return some, nil
}

// request sends one query, and calls read with its answer, which has about that many blocks.
func (s *sparse) request(
	ctx context.Context, method, query string, blocks int, read func(*repo.CAR) error,
) error {
	if s.received > s.c.opts.CARBytesMax {
		return fmt.Errorf("parts of %d bytes: %w", s.received, repo.ErrInvalid)
	}
	var car *repo.CAR
	err := s.watched(ctx, func(ctx context.Context, tr *transfer) (err error) {
		defer func() { s.received += tr.got.Load() }()
		car, err = s.transfer(ctx, tr, method, query, repo.CAROptions{
			BytesMax:  min(s.c.opts.CARBytesMax, int64(blocks)*answerBlockBytes),
			BlocksMax: min(s.c.opts.CARBlocksMax, 2*blocks),
			Rootless:  method == blocksMethod,
		})
		return err
	})
	if err == nil {
		err = errors.Join(read(car), car.Close())
	}
	s.forgetBody()
	return err
}

// keep asks for memory for the part. As much as every task may keep is not asked for.
func (s *session) keep(n int64) bool {
	if s.kept == 0 && n <= repo.ChunkBytes {
		s.kept = -1
		return true
	}
	if !s.c.memory.take(n) {
		return false
	}
	s.kept = max(s.kept, 0) + n
	return true
}
