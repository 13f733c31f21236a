// Package pace decides which host is asked next, and how much a host is asked.
//
// # Purpose
//
// It shares permits among hosts so that no host delays another, and learns how many requests each
// host accepts at a time and in a period.
//
// # Invariants
//
//  1. A host gets no more requests at a time than its limiter allows, a number between the bounds
//     that are set for the host. After a parking it gets one request at a time until it has
//     answered as expected.
//  2. No request begins while its host is banned or parked, or has spent a window: in any second,
//     hour or day, no more requests begin than the limits set. A quota that a host states is never
//     overdrawn, and its second half is spent evenly. A host may have a quota for each kind of
//     request: a request spends only the quotas that are stated in answers to requests of its kind.
//  3. A refusal halves the number of requests at a time, once for all requests under way. Successes
//     in the usual time raise it by one a round.
//  4. A fault parks a host for a second. Each further fault doubles that time, up to five minutes,
//     until the host answers as expected.
//  5. Hosts with work take turns. A host that holds a sixteenth of the permits comes after hosts
//     that hold less, and leaves a quarter free if it holds permits for longer than usual. So a
//     host delays the others little, however much work it has, and every host is served.
//  6. Hosts that never answered as expected, and hosts that hold permits for very long, share a
//     bounded part of the permits: an attacker who makes up host names gets no more than that part.
//  7. A pick takes constant time, however many hosts and however much work there is. A host whose
//     wait has ended costs logarithmic time in the number of waiting hosts.
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
