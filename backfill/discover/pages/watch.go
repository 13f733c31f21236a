package pages

// Watch decides where the pages of one listing end. The zero Watch is ready for the first page.
type Watch struct {
	empty   int // pages in a row without entries
	repeats repeats
}

// Ending is the reason why a listing is read no further. The zero Ending means that it has more
// pages.
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

// Abandoned reports whether the listing was given up because it repeats itself or does not end.
func (e Ending) Abandoned() bool { return e == EndRepeats || e == EndNever }

// Named reports whether a page named anything.
func (w *Watch) Named() bool { return w.repeats.pages > 0 }

// Page takes a page that was requested with a cursor: its number of entries, the accounts that they
// name, the number of pages read including this one, and the cursor that the answer names. It
// returns the cursor of the following page, or the reason why the list ends.
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
