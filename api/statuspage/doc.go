// Package statuspage has the public status page: what outsiders may see of a daemon.
//
// # Purpose
//
// An operator can let visitors see whether the daemon is well. A Status is the list of all that is
// public. It is made of figures that also have private parts, which stay behind.
//
// # Invariants
//
//  1. What is not a field of Status is not public. Each field is a number, a time, or a text that
//     this package chose, but for the host names of sources and the version.
//  2. A source at an address or a name that only a private network knows has no name.
//  3. Alerts, conditions and series that this package does not know have no name of their own.
//  4. The page loads nothing from elsewhere, runs no script or style but the files of this package
//     and of the dashboard (dashboard.Head sets the policy), and sets no cookie.
//
// # Concurrency
//
// Of is pure, but for its look at the charts. A Page has no state that changes.
//
// # Files
//
//   - status.go: Status, and Of, which makes it of Facts
//   - problem.go: alerts, conditions and pauses by their public names; the verdict, by the rule of
//     package verdict
//   - source.go: sources, and which of them have a name
//   - backfill.go: how far the backfill is; figures.go: the charts
//   - page.go: Page, which serves the files
//   - files/: status.html, and status.js, which refreshes it
package statuspage
