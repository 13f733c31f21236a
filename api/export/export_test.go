package export

// SetOutlineBytes bounds outlines, so that few records need several.
func (e *Exporter) SetOutlineBytes(n int) { e.outlineMax = n }

// Kept returns how many outlines are kept, and their bytes.
func (e *Exporter) Kept() (n, bytes int) {
	e.outlines.mu.Lock()
	defer e.outlines.mu.Unlock()
	return e.outlines.last.Len(), e.outlines.bytes
}
