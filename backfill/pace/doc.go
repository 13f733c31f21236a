// Package pace decides which host is asked next, and how much a host is asked.
//
// # Purpose
//
// It shares permits among hosts so that no host delays another, and finds out for each host how
// many requests at a time, and in a period, it bears.
//
// # Invariants
//
//  1. A host gets no more requests at a time than its limiter allows, which is between the bounds
//     set for it; after a parking it gets one at a time until it has answered in order.
//  2. No request begins while its host is banned or parked, or has spent a window: in any second,
//     hour or day, no more requests begin than the limits set. A quota that a host states is never
//     overdrawn, and its second half is spent evenly. A host may have a quota for each kind of
//     request: a request spends the quotas that answers to its kind state, and no other.
//  3. A refusal halves the requests at a time, once for all requests under way; each success in the
//     usual time adds to them, one a round.
//  4. A fault parks a host for a second. Each further fault doubles that, up to five minutes, until
//     the host answers in order.
//  5. Hosts with work take turns. A host that holds a sixteenth of the permits comes after hosts
//     that hold less, and leaves a quarter free if it holds permits for longer than usual. So no
//     host delays another much, however much work it has, and every host is served.
//  6. Hosts that never answered in order, and hosts that hold permits for very long, share a
//     bounded part of the permits: an attacker can make up host names, but gets no more than that
//     part.
//  7. A pick takes constant time, however many hosts and however much work there is. A host that
//     waited for a time takes logarithmic time in the number of hosts that wait.
//
// # Concurrency
//
// None: every type is a plain value that its owner guards. Time is an argument; nothing waits or
// reads a clock.
//
// # Files
//
//   - limits.go: limits of a host, and rules that set them by pattern
//   - limiter.go: one host: requests at a time, faults, parking; window.go: requests in a period;
//     quota.go: rate limits that the host states, by policy
//   - header.go: headers of answers that state limits
//   - scheduler.go: the order of hosts; ring.go: its queues
package pace
