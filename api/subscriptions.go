package api

import (
	"context"
	"net/http"

	"cistern/api/durable"
	"cistern/api/webhook"
	"cistern/api/wire"
)

// subscriptions shows and changes the durable subscriptions.
type subscriptions struct{ registry *durable.Registry }

// list handles GET /subscriptions.
func (s *subscriptions) list(w http.ResponseWriter, r *http.Request) error {
	return writeList(w, r, s.registry.All())
}

// show handles GET /subscriptions/{name}.
func (s *subscriptions) show(w http.ResponseWriter, r *http.Request) error {
	st, err := s.registry.Status(r.PathValue("name"))
	if err != nil {
		return err
	}
	wire.WriteJSON(w, http.StatusOK, st)
	return nil
}

// put handles PUT /subscriptions/{name}.
func (s *subscriptions) put(w http.ResponseWriter, r *http.Request) error {
	var wanted durable.Wanted
	if err := wire.ReadObject(w, r, subscriptionBytesMax, &wanted); err != nil {
		return err
	}
	st, made, err := s.registry.Put(r.Context(), r.PathValue("name"), wanted)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if made {
		status = http.StatusCreated
	}
	wire.WriteJSON(w, status, st)
	return nil
}

// replay handles POST /subscriptions/{name}/replay.
func (s *subscriptions) replay(w http.ResponseWriter, r *http.Request) error {
	var wanted struct {
		Start *durable.Start `json:"start"`
	}
	if err := wire.ReadObject(w, r, subscriptionBytesMax, &wanted); err != nil {
		return err
	}
	if wanted.Start == nil {
		return wire.Invalid(`start is missing: want "snapshot", "head", "oldest", an id, or a time`)
	}
	st, err := s.registry.Replay(r.Context(), r.PathValue("name"), *wanted.Start)
	if err != nil {
		return err
	}
	wire.WriteJSON(w, http.StatusOK, st)
	return nil
}

// resume handles POST /subscriptions/{name}/resume.
func (s *subscriptions) resume(w http.ResponseWriter, r *http.Request) error {
	st, err := s.registry.Resume(r.PathValue("name"))
	if err != nil {
		return err
	}
	wire.WriteJSON(w, http.StatusOK, st)
	return nil
}

// drop handles DELETE /subscriptions/{name}.
func (s *subscriptions) drop(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	if err := s.registry.Drop(name); err != nil {
		return err
	}
	wire.WriteJSON(w, http.StatusOK, map[string]string{"name": name, "result": "removed"})
	return nil
}

// newWebhooks makes the runner of the webhooks.
func (s *Server) newWebhooks(o Options, registry *durable.Registry) (err error) {
	s.webhooks, err = webhook.New(webhook.Options{Subscriptions: registry, Delivery: s.delivery,
		Epoch: o.Store.Epoch(), AllowPrivate: o.AllowPrivate, UserAgent: "cistern/" + o.Version, Gate: o.WebhookGate,
		Logger: o.Logger, Registerer: o.Registerer})
	return err
}

// Webhooks sends the events of subscriptions that have a webhook, until ctx ends. An error is one
// of the store.
func (s *Server) Webhooks(ctx context.Context) error { return s.webhooks.Run(ctx) }

// Subscriptions returns the durable subscriptions, in order of name.
func (s *Server) Subscriptions() []durable.Status { return s.subscriptions.registry.All() }

// SavePositions writes what consumers acknowledged while the store was frozen. An error is one of
// the store.
func (s *Server) SavePositions() error { return s.subscriptions.registry.Save() }
