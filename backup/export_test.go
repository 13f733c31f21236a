package backup

// Asked returns how many borrowers wait.
func (l *Lender) Asked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.asked)
}
