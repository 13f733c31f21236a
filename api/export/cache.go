package export

import (
	"sync"

	"cistern/ingest/repo"
	"cistern/store"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// outlines keeps the outlines that were used last.
type outlines struct {
	mu    sync.Mutex
	last  *simplelru.LRU[treeOf, *outline] // mu guards
	bytes int                              // mu guards; of last
	most  int                              // bytes
	// passes are the trees whose rows are being read to make an outline. The channel is closed when
	// that ends. mu guards.
	passes map[treeOf]chan struct{}
}

// treeOf is the tree of a copy. Its root stands for one set of records, so that an outline never
// goes out of date.
type treeOf struct {
	ordinal store.Ordinal
	root    repo.CID
}

func treeOfRepo(r *store.Repo) treeOf { return treeOf{r.Ordinal, r.Data} }

// newOutlines keeps outlines of so many bytes.
func newOutlines(most int) (*outlines, error) {
	c := &outlines{most: most, passes: map[treeOf]chan struct{}{}}
	var err error
	c.last, err = simplelru.NewLRU(cacheOutlinesMax, func(_ treeOf, o *outline) {
		c.bytes -= o.bytes
	})
	return c, err
}

func (c *outlines) get(of treeOf) (*outline, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last.Get(of)
}

// join returns the outline of a tree, or what is closed when the pass over its rows ends that
// another caller makes. It returns neither if the caller is to make the pass, and then to call
// leave.
func (c *outlines) join(of treeOf) (o *outline, pass <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o, ok := c.last.Get(of); ok {
		return o, nil
	}
	if pass, ok := c.passes[of]; ok {
		return nil, pass
	}
	c.passes[of] = make(chan struct{})
	return nil, nil
}

// leave ends a pass.
func (c *outlines) leave(of treeOf) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.passes[of])
	delete(c.passes, of)
}

func (c *outlines) put(of treeOf, o *outline) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last.Contains(of) {
		return
	}
	c.bytes += o.bytes
	c.last.Add(of, o)
	for c.bytes > c.most {
		c.last.RemoveOldest()
	}
}

func (c *outlines) remove(of treeOf) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last.Remove(of)
}

// mismatches remembers copies that do not agree with their commit, so that further requests neither
// read such a copy again nor queue it again.
type mismatches struct {
	mu   sync.Mutex
	last *simplelru.LRU[string, attempt] // mu guards; by DID
}

// attempt identifies a copy of a repository: every fetch raises the number.
type attempt struct {
	rev    string
	number uint64
}

func newMismatches() (*mismatches, error) {
	last, err := simplelru.NewLRU[string, attempt](mismatchesMax, nil)
	return &mismatches{last: last}, err
}

// known reports whether this copy of a repository was found not to agree.
func (m *mismatches) known(r *store.Repo) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	was, _ := m.last.Get(r.DID)
	return was == attempt{r.Rev, r.Attempt}
}

// add remembers a copy, and reports whether it is the first of its rev.
func (m *mismatches) add(r *store.Repo) (first bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	was, known := m.last.Get(r.DID)
	m.last.Add(r.DID, attempt{r.Rev, r.Attempt})
	return !known || was.rev != r.Rev
}

// forget forgets a repository.
func (m *mismatches) forget(did string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last.Remove(did)
}
