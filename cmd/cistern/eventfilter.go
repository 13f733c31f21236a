package main

import (
	"errors"
	"strings"

	"cistern/client"
	"cistern/filter"
)

// eventFilter is the options of a command that choose events.
type eventFilter struct {
	collections, dids, kinds, actions []string
	live, historical                  bool
}

func (f *eventFilter) options() []option {
	return []option{
		{name: "collection", value: "NSID", repeat: true, set: add(&f.collections, parsePattern),
			help: "Record events of this collection only, such as app.bsky.feed.post or " +
				"app.bsky.*. Account and identity events stay unless --kind leaves them out."},
		{name: "did", value: "DID", repeat: true, set: add(&f.dids, parseDID),
			help: "Events of this account only."},
		{name: "kind", value: "KIND", repeat: true,
			set: add(&f.kinds, choice(text, filter.EventKinds...)),
			help: "Events of this kind only: " + strings.Join(filter.EventKinds, ", ") +
				". Repo events come only if this names them."},
		{name: "action", value: "ACTION", repeat: true,
			set:  add(&f.actions, choice(text, filter.EventActions...)),
			help: "Record events of this action only: create, update or delete."},
		{name: "live", set: set(&f.live, parseSwitch),
			help: "Record events from the firehose only."},
		{name: "historical", set: set(&f.historical, parseSwitch),
			help: "Record events from fetched repositories only."},
	}
}

// validate returns the mistake that no single option shows, or nil.
func (f *eventFilter) validate() error {
	if f.live && f.historical {
		return errors.New("give either --live or --historical; without them both are wanted")
	}
	return nil
}

// wanted returns the filter for requests.
func (f *eventFilter) wanted() client.Filter {
	c := client.Filter{Collections: f.collections, DIDs: f.dids, Kinds: f.kinds, Actions: f.actions}
	if f.live || f.historical {
		c.Live = &f.live
	}
	return c
}
