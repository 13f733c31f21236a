package api

import (
	"context"

	"cistern/api/durable"
	"cistern/api/webhook"
)

// newWebhooks makes the runner of the webhooks.
func (s *Server) newWebhooks(o Options) (err error) {
	s.webhooks, err = webhook.New(webhook.Options{Subscriptions: s.registry, Delivery: s.delivery,
		Epoch: o.Store.Epoch(), AllowPrivate: o.AllowPrivate, UserAgent: "cistern/" + o.Version,
		Gate: o.WebhookGate, Logger: o.Logger, Registerer: o.Registerer})
	return err
}

// Webhooks sends the events of subscriptions that have a webhook, until ctx ends. An error is one
// of the store.
func (s *Server) Webhooks(ctx context.Context) error { return s.webhooks.Run(ctx) }

// Subscriptions returns the durable subscriptions, in order of name.
func (s *Server) Subscriptions() []durable.Status { return s.registry.All() }

// SavePositions writes what consumers acknowledged while the store was frozen. An error is one of
// the store.
func (s *Server) SavePositions() error { return s.registry.Save() }
