package maintain

import "sync"

// Work is how far a run is.
type Work struct {
	Done, Total int64  // items, or bytes: one unit for each operation. Total is 0 if it is unknown.
	Item        string // what is being worked on, such as a DID or the name of a table
	ItemDone    int64  // of the current item
	ItemTotal   int64
}

// Progress takes the progress of one run. It keeps it while the run is interrupted.
type Progress struct {
	// mu guards:
	mu   sync.Mutex
	work Work
}

// Set states how much of the whole is done. A total of 0 is unknown.
func (p *Progress) Set(done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.work.Done, p.work.Total = done, total
}

// Item names the current item, and states how much of it is done. A total of 0 is unknown.
func (p *Progress) Item(name string, done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.work.Item, p.work.ItemDone, p.work.ItemTotal = name, done, total
}

// Work returns what was stated last.
func (p *Progress) Work() Work {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.work
}
