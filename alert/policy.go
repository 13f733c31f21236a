package alert

import "time"

// Kind is what kind of subject fails. It chooses the grace.
type Kind string

const (
	Disk         Kind = "disk"         // that the store is on
	Hosts        Kind = "hosts"        // all hosts together
	Host         Kind = "host"         // one that the operator has named
	Directory    Kind = "directory"    // a PLC directory
	Source       Kind = "source"       // a firehose
	Subscription Kind = "subscription" // its webhook
	Operation    Kind = "operation"    // of maintenance
	Condition    Kind = "condition"    // of the machine
)

// Kinds are all of them.
var Kinds = [...]Kind{Disk, Hosts, Host, Directory, Source, Subscription, Operation, Condition}

// Runbook returns where the documentation says what to do about an alert of a kind: a file of the
// source, and a heading in it.
func Runbook(k Kind) string { return "docs/operating.md#alert-" + string(k) }

// Policy is the grace of a kind: a subject alerts once it has failed for so long and so often. Zero
// demands nothing.
type Policy struct {
	After    time.Duration
	Attempts int
}

// DefaultPolicies returns the graces that are used unless the operator chooses others.
func DefaultPolicies() map[Kind]Policy {
	return map[Kind]Policy{
		Disk:         {},
		Hosts:        {After: time.Hour},
		Host:         {After: time.Hour, Attempts: 3},
		Directory:    {After: 10 * time.Minute}, // identity.Fault has a least number of its own
		Source:       {After: 10 * time.Minute, Attempts: 3},
		Subscription: {After: 15 * time.Minute, Attempts: 3},
		Operation:    {After: 30 * time.Minute, Attempts: 3},
		Condition:    {After: 5 * time.Minute},
	}
}
