// Package dashboard has the pages of the private listener, and the sessions of their readers.
//
// # Purpose
//
// An operator looks at the daemon in a browser. The files of the pages are part of the binary. A
// browser that has given the admin token gets a session, so that it need not keep the token.
//
// # Invariants
//
//  1. A page loads nothing from elsewhere and runs no script or style but the files of this
//     package: its Content-Security-Policy permits nothing else.
//  2. The value of a session is random, is in no URL and no log, and only its hash is in memory.
//  3. There are at most sessionsMax sessions. A session ends when it has not been used for
//     sessionIdle, by End, or with the process.
//
// # Concurrency
//
// Files has no state that changes. Sessions may be used by any goroutine.
//
// # Files
//
//   - files.go: Files, which serves what is in the directory files
//   - session.go: Sessions, and their cookie
//   - files/: index.html and login.html; app.js, which refreshes the page, with its parts
//     format.js, table.js, charts.js, states.js, panels.js and repos.js; style.css; uPlot 1.6.32
//     with its licence
package dashboard
