// Package pace decides which host is asked next, and how much a host is asked.
//
// # Purpose
//
// Share a number of permits among hosts so that none delays another, and find out for each host how many
// requests at a time, and how many in a while, it bears.
//
// # Invariants
//
//  1. A host is asked for no more requests at a time than its limiter says, which is between the bounds set
//     for it; after a parking one at a time until it has answered in order.
//  2. No request begins while its host is banned, parked, or has spent a window: in any stretch of a second, an
//     hour or a day there begin no more than were set. What a host says is left until its reset is never overdrawn,
//     and its second half is spent evenly. A host may count kinds of requests apart, in quotas with different policies: a
//     request spends the quotas that answers to its kind named, and no other.
//  3. A refusal halves what a host is asked at a time, once for all requests that were under way; each success
//     while answers come in the usual time adds to it, one a round.
//  4. A fault parks a host for a second, doubling to five minutes with each that follows, until it answers in order.
//  5. Hosts with work take turns. Of the permits, one that holds a sixteenth of them comes behind those that hold less, and, if it
//     holds them for longer than is usual, leaves a quarter free. So no host delays another much, however much work it
//     has, and every host is served.
//  6. Hosts that never answered in order, and those that hold permits for very long, take part of the permits only: names of hosts
//     cost nothing.
//  7. A pick takes constant time, whatever the hosts and however much is queued for them; one whose
//     time has come takes the logarithm of how many wait for theirs.
//
// # Concurrency
//
// None: everything is a plain value that its owner guards. Time is an argument; nothing waits, nothing
// reads a clock.
//
// # Files
//
//   - limits.go: what can be set for a host, and rules of which hosts it is set for
//   - limiter.go: one host: requests at a time, faults, parking; window.go: requests in a while;
//     quota.go: what the host said itself of its limits, by policy
//   - header.go: what answers say of limits
//   - scheduler.go: who is next; ring.go: the queues of it
package pace
