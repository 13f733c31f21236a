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

func (f *eventFilter) options() []Option {
	return []Option{
		{Name: "collection", Value: "NSID", Repeat: true, Set: Add(&f.collections, ParsePattern),
			Help: "Record events of this collection only, such as app.bsky.feed.post or " +
				"app.bsky.*. Account and identity events stay unless --kind leaves them out."},
		{Name: "did", Value: "DID", Repeat: true, Set: Add(&f.dids, ParseDID),
			Help: "Events of this account only."},
		{Name: "kind", Value: "KIND", Repeat: true,
			Set: Add(&f.kinds, Choice(Text, filter.EventKinds...)),
			Help: "Events of this kind only: " + strings.Join(filter.EventKinds, ", ") +
				". Repo events come only if this names them."},
		{Name: "action", Value: "ACTION", Repeat: true,
			Set:  Add(&f.actions, Choice(Text, filter.EventActions...)),
			Help: "Record events of this action only: create, update or delete."},
		{Name: "live", Set: Set(&f.live, ParseSwitch),
			Help: "Record events from the firehose only."},
		{Name: "historical", Set: Set(&f.historical, ParseSwitch),
			Help: "Record events from fetched repositories only."},
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
