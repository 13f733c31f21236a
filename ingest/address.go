package ingest

import "cistern/store"

// ParseSource reads the address of a source: http, https, ws or wss, a host, perhaps a base path, and perhaps
// the path of subscribeRepos behind it. What it gives is the one form that stands in rows and answers: ws or wss,
// the host in lower case without a default port or a trailing dot, no slash at the end. The error names what is wrong.
func ParseSource(url string, pds bool) (store.Source, error) { return store.Source{}, errNotWritten }
