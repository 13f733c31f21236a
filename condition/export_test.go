package condition

// ReadGrace and the slacks are limits that tests count with.
const (
	ReadGrace = readGrace
	DiskSlack = diskSlack
	Slack     = slack
)
