package client

import "time"

// Hurry makes a client connect again and ask for its place after a moment.
func (c *Client) Hurry(retry, ask time.Duration) {
	c.pace = pace{retry: retry, retryMax: 4 * retry, ask: ask}
}
