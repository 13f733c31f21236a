package clients

// Taken returns the number of slots that are held.
func Taken(q *Queue) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.taken
}

// Present returns the number of clients that hold a slot or wait for one.
func Present(q *Queue) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.clients) + len(q.waiting)
}

// Remembered returns the number of clients whose wrong guesses are remembered.
func (b *Brake) Remembered() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.guessers.Len()
}
