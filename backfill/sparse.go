package backfill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"cistern/backfill/hosts"
	"cistern/backfill/refilter"
	"cistern/filter"
	"cistern/ingest/repo"
	"cistern/store"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Strategy says how a repository is fetched of which the filter wants only some collections.
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

	nameBlockNotFound = "BlockNotFound" // the lexicon's name for what the reference PDS calls a bad request
)

var (
	// errWhole: a part is not worth it, or does not fit into memory.
	errWhole = errors.New("the whole repository is cheaper")
	// errOmitted: the host did not send what it was asked for.
	errOmitted = fmt.Errorf("the host left out blocks that its signed tree names: %w", repo.ErrInvalid)
)

// sparse gathers the wanted part of one repository.
type sparse struct {
	t        *task
	part     *repo.Partial
	received int64 // bytes of all answers, before decompression
	began    time.Time
	path     string
	ranges   int // of wanted keys
}

// sparse fetches the wanted part: a proof of some path brings the signed commit and a way into the tree, and then blocks
// are asked for by their CIDs, first of nodes in whose reach the wanted keys are, then of records. No copy without an
// error means that the whole is to be fetched. way is that of the metric.
func (t *task) sparse(ctx context.Context) (part records, way string, err error) {
	s := t.newSparse()
	if s == nil {
		return nil, fetchFull, nil
	}
	err = s.run(ctx)
	t.r.metrics.parts.Add(float64(s.received))
	if err == nil {
		err = t.walkAll(s.part)
	}
	if err == nil {
		t.signal = t.signal || s.part.Sampled()
		t.r.wholeOnly.gathered(t.hostID)
		return s.part, fetchSparse, nil
	}
	t.forgetMemory()
	switch {
	case errors.Is(err, errWhole), errors.Is(err, repo.ErrPartialBytes):
		return nil, fetchFull, nil
	case errors.Is(err, errTimeout), hosts.QueriesSpent(err), t.fallsBack(ctx, err): // its many questions took too long, perhaps one will not
		t.r.opts.Logger.Debug("fetching the whole, since its parts are not to be had", "did", t.it.did, "host", t.ident.PDS, "err", err)
		return nil, fetchFallback, nil
	}
	if s.part.Blocks() > 0 {
		t.cutShort(ctx, s, err)
	}
	return nil, "", err
}

// cutShort notes what ended the gathering of a part that had begun, if it was the host.
func (t *task) cutShort(ctx context.Context, s *sparse, err error) {
	now := t.r.opts.Now()
	v := classify(ctx, err, now)
	if v.lookup || v.ending != endRetry && v.ending != endLater {
		return
	}
	t.r.wholeOnly.cut(t.hostID, s.began, now)
	if v.kind == store.RateLimited {
		t.r.wholeOnly.wholeNext(t.it.did)
	}
}

// fallsBack says whether getRepo may do better: the host answered, and neither that the account is not to be had nor that
// we should leave it alone.
func (t *task) fallsBack(ctx context.Context, err error) bool {
	var answer *hosts.AnswerError
	if errors.As(err, &answer) {
		if answer.Code == http.StatusNotImplemented || answer.Code == http.StatusNotFound && !ofMethod(answer.Name) {
			t.r.wholeOnly.add(t.hostID, t.r.opts.Now())
		}
		if answer.Code == http.StatusNotImplemented || answer.Code == http.StatusInternalServerError {
			return true
		}
	}
	v := classify(ctx, err, t.r.opts.Now())
	return v.ending == endRetry && v.kind == store.Generic && !v.lookup && !errors.Is(err, repo.ErrSignature)
}

// ofMethod says whether an error is one that the methods have themselves, whatever its status: the host knows them.
func ofMethod(name string) bool {
	return strings.HasPrefix(name, "Repo") || name == "RecordNotFound" || name == nameBlockNotFound
}

// newSparse is nil if the whole is wanted, or is likely to be cheaper. A repository whose last attempts failed is fetched
// whole: that is one request, where parts are many.
func (t *task) newSparse() *sparse {
	f, strategy := t.filter.Filter, t.r.opts.Strategy
	wanted := f.Ranges(false)
	switch {
	case strategy == StrategyFull, wanted == nil, f.StoresAll(), t.row.Retry.Count >= sparseTriesMax:
		return nil
	case t.r.wholeOnly.has(t.hostID, t.r.opts.Now()):
		return nil
	case strategy == StrategyAuto && (t.smallAsHeld() || !t.spares()):
		return nil
	case t.r.wholeOnly.takeWhole(t.it.did):
		return nil
	}
	s := &sparse{t: t, began: t.r.opts.Now(), path: probePath(wanted[0]), ranges: len(wanted)}
	s.part = repo.NewPartial(repo.PartialOptions{
		Wanted:   keyRanges(wanted),
		Sample:   t.signalRanges(),
		BytesMax: t.r.opts.RepoMemoryBytes,
		Grow:     t.keep,
	})
	return s
}

// smallAsHeld says whether all of the repository was held when it was fetched last, and was little.
func (t *task) smallAsHeld() bool {
	if t.row.Ordinal == 0 || t.row.Records > sparseRecordsMin {
		return false
	}
	old, err := t.r.store.FilterAt(t.row.Filter)
	return err == nil && (old.WantsAll() || old.StoresAll())
}

// signalRanges are the keys that show whether there is a record of a signal, where the row depends on that.
func (t *task) signalRanges() []repo.Range {
	f := t.filter.Filter
	if !refilter.OnSignal(f, &t.row) {
		return nil
	}
	signals, err := filter.Compile(filter.Config{Collections: f.Signals()})
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

// probePath is a path in a range, or right behind it. Records of a kind of which there is but one often have this key.
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

// run gathers the part. A repository that moves on meanwhile loses nodes that were named: then there is a newer proof,
// and what has come stays.
func (s *sparse) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, min(sparseTimeMax, s.t.r.opts.FetchTimeout), errTimeout)
	defer cancel()
	var err error
	for range sparseRootsMax {
		last := s.t.commit.Data
		if perr := s.probe(ctx); perr != nil {
			return perr
		}
		if err != nil && s.t.commit.Data == last {
			return err
		}
		if err = s.gather(ctx); err == nil || !withheld(err) {
			return err
		}
	}
	return err
}

// withheld says whether the host does not have the blocks, or does not give them.
func withheld(err error) bool {
	var answer *hosts.AnswerError
	return errors.Is(err, errOmitted) || errors.As(err, &answer) &&
		(answer.Code == http.StatusBadRequest && !strings.HasPrefix(answer.Name, "Repo") || answer.Name == nameBlockNotFound)
}

// probe asks for the proof of a path, and takes the signed commit and what else of it is of use.
func (s *sparse) probe(ctx context.Context) error {
	collection, rkey, _ := strings.Cut(s.path, "/")
	query := "&collection=" + url.QueryEscape(collection) + "&rkey=" + url.QueryEscape(rkey)
	return s.ask(ctx, proofMethod, query, proofBlocksMax, func(car *repo.CAR) error {
		block, ok, err := car.Block(car.Root())
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("the commit %s is not in the proof: %w", car.Root(), repo.ErrInvalid)
		}
		if err := s.t.verifyCommit(ctx, block); err != nil {
			return err
		}
		s.part.Plant(s.t.commit.Data)
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
	for skipped := s.t.row.Ordinal == 0; ; {
		missing, err := s.part.Missing(nil)
		if err == nil && s.part.Mapped() && !skipped {
			skipped = true
			if err = s.skip(); err == nil {
				missing, err = s.part.Missing(nil)
			}
		}
		if err != nil || len(missing) == 0 {
			return err
		}
		if s.t.r.opts.Strategy == StrategyAuto && s.wasteful(len(missing)) {
			return errWhole
		}
		for ids := range slices.Chunk(missing, blocksPerAsk) {
			if err := s.blocks(ctx, ids); err != nil {
				return err
			}
		}
	}
}

// skip leaves out the records that are held already: the difference does not look at them. Nobody changes them while the
// fetch buffers live commits.
func (s *sparse) skip() error {
	rows, err := s.t.r.store.Rows(s.t.row.Ordinal)
	if err != nil {
		return ours(err)
	}
	more := rows.Next()
	s.part.Skip(func(key []byte, id repo.CID) bool {
		for more && bytes.Compare(rows.Row().Path, key) < 0 {
			more = rows.Next()
		}
		return more && bytes.Equal(rows.Row().Path, key) && rows.Row().CID == id
	})
	return ours(rows.Close())
}

// wasteful says whether the whole is likely to cost less than what is missing: a small repository is one answer, and so is
// one of which most is wanted. The guess of the latter is no good while hardly more subtrees are to be looked into than
// ranges have ends.
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
	return s.ask(ctx, blocksMethod, string(query), len(ids), func(car *repo.CAR) error {
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

// ask sends one query and gives its answer, which has about so many blocks, to read.
func (s *sparse) ask(ctx context.Context, method, query string, blocks int, read func(*repo.CAR) error) error {
	t := s.t
	if s.received > t.r.opts.CARBytesMax {
		return fmt.Errorf("parts of %d bytes: %w", s.received, repo.ErrInvalid)
	}
	var car *repo.CAR
	err := t.watched(ctx, func(ctx context.Context, tr *transfer) (err error) {
		defer func() { s.received += tr.got.Load() }()
		car, err = t.transfer(ctx, tr, method, query, repo.CAROptions{
			BytesMax:  min(t.r.opts.CARBytesMax, int64(blocks)*answerBlockBytes),
			BlocksMax: min(t.r.opts.CARBlocksMax, 2*blocks),
			Rootless:  method == blocksMethod,
		})
		return err
	})
	if err == nil {
		err = errors.Join(read(car), car.Close())
	}
	t.forgetBody()
	return err
}

// keep asks for memory for the part. As much as every task may keep is not asked for.
func (t *task) keep(n int64) bool {
	if t.kept == 0 && n <= repo.ChunkBytes {
		t.kept = -1
		return true
	}
	if !t.r.memory.take(n) {
		return false
	}
	t.kept = max(t.kept, 0) + n
	return true
}
