// Package frontpage has the page that the public listener shows to browsers.
//
// # Purpose
//
// A visitor of an index learns from its page what the index holds, how fresh it is, and how each of
// its routes is used, by examples that work when they are pasted.
//
// # Invariants
//
//  1. The page has nothing but what the routes of the public listener answer too: no errors,
//     limits, sources or subscriptions.
//  2. The page loads nothing from elsewhere, and runs no script or style but the files of this
//     package (dashboard.Head sets the policy). Without its script it lacks live events only.
//  3. Everything that comes from outside (the header Host, names of accounts and collections) is
//     escaped, and an example has nothing in its quotes that would end them.
//  4. Examples are about a record that is shown, of an account that is not hidden; without one they
//     have placeholders.
//
// # Concurrency
//
// A Page has no state that changes.
//
// # Files
//
//   - page.go: Page, Facts
//   - routes.go: the routes in groups, each with its example
//   - files/: page.html, the template; page.js, which shows live events; style.css; icon.svg
package frontpage
