package remote

import (
	"errors"
	"strings"

	"cistern/client"
	"cistern/cmd/cistern/command"
	"cistern/filter"
)

// eventFilter is the options of a command that choose events.
type eventFilter struct {
	collections, dids, kinds, actions []string
	live, historical                  bool
}

func (f *eventFilter) options() []command.Option {
	return []command.Option{
		{Name: "collection", Value: "NSID", Repeat: true,
			Set: command.Add(&f.collections, command.ParsePattern),
			Help: "Record events of this collection only, such as app.bsky.feed.post or " +
				"app.bsky.*. Account and identity events stay unless --kind leaves them out."},
		{Name: "did", Value: "DID", Repeat: true, Set: command.Add(&f.dids, command.ParseDID),
			Help: "Events of this account only."},
		{Name: "kind", Value: "KIND", Repeat: true,
			Set: command.Add(&f.kinds, command.Choice(command.Text, filter.EventKinds...)),
			Help: "Events of this kind only: " + strings.Join(filter.EventKinds, ", ") +
				". Repo events come only if this names them."},
		{Name: "action", Value: "ACTION", Repeat: true,
			Set:  command.Add(&f.actions, command.Choice(command.Text, filter.EventActions...)),
			Help: "Record events of this action only: create, update or delete."},
		{Name: "live", Set: command.Set(&f.live, command.ParseSwitch),
			Help: "Record events from the firehose only."},
		{Name: "historical", Set: command.Set(&f.historical, command.ParseSwitch),
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
