package pages

// Watch watches the pages of one listing for its end. The zero Watch is before the first page.
type Watch struct {
	empty   int // pages in a row without entries
	repeats repeats
}

// Ending is why a listing is read no further. The zero Ending means that it has more pages.
type Ending string

// Endings of a listing.
const (
	// EndReached means that the host named no further page.
	EndReached Ending = "it has no further page"
	// EndEmpty means that too many pages in a row were empty. The listing is not complete.
	EndEmpty Ending = "it has only empty pages"
	// EndRepeats means that the listing is abandoned, since it names the same accounts again.
	EndRepeats Ending = "it repeats itself"
	// EndNever means that the listing is abandoned, since it invents accounts.
	EndNever Ending = "it has more pages than any correct listing"
)

// Abandoned reports whether the host would have gone on for ever.
func (e Ending) Abandoned() bool { return e == EndRepeats || e == EndNever }

// Named reports whether a page named anything.
func (w *Watch) Named() bool { return w.repeats.pages > 0 }

// Page takes a page that was requested by a cursor and has so many entries, of which names are the
// accounts. pages is how many were read, with this one, and answered the cursor of the page. It
// returns the cursor of the following page, and why there is none.
func (w *Watch) Page(cursor string, names []string, entries int, pages int64,
	answered string) (next string, end Ending) {
	again := w.repeats.page(cursor, names)
	if cursor == "" {
		w.empty = 0 // a pass that a new filter cut short may have ended with empty pages
	}
	w.empty++
	if entries > 0 {
		w.empty = 0
	}
	switch {
	case answered == "" || answered == cursor:
		return "", EndReached
	case again:
		return "", EndRepeats
	case pages >= pagesMax:
		return "", EndNever
	case w.empty >= emptyMax:
		return "", EndEmpty
	}
	return answered, ""
}
