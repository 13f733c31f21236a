package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"

	"cistern/cmd/cistern/command"
	"cistern/console"
)

const subscriptionRotateAbout = `Replace the secrets with which the requests of a webhook are signed.
Every request is signed with each of up to four secrets, so that none is refused
meanwhile: give the new secret and the old one, then the new one to the
receiver, and at last the new one alone. The filter and the place in the log
stay. The daemon never shows secrets, so they are to be kept.`

// noWebhook is the value of --webhook that removes a webhook.
const noWebhook = "none"

// webhookOptions is what a user can choose of a webhook.
type webhookOptions struct {
	url              string
	events, requests uint64 // 0: the default
	secrets          string // a file
}

func (o *webhookOptions) options() []command.Option {
	return []command.Option{
		{Name: "webhook", Value: "URL", Set: command.Set(&o.url, parseWebhook),
			Help: "Have the events posted to this URL instead of waiting for connections. With " +
				"--replace, none removes the webhook."},
		{Name: "webhook-events", Value: "N", Set: command.Set(&o.events, command.Number(1, 100)),
			Help: "Most events of a request. The default is 1."},
		{Name: "webhook-requests", Value: "N", Set: command.Set(&o.requests, command.Number(1, 16)),
			Help: "Most requests in flight, each with events of other accounts. The default is 4."},
		{Name: "webhook-secrets", Value: "FILE", Set: command.Set(&o.secrets, command.Text),
			Help: "File with the secrets that sign each request, one a line, the newest first; - " +
				"is standard input. Each is whsec_ and the base64 of 24 to 64 bytes. Without " +
				"it a webhook keeps its secrets, and a new one gets one, which is printed once."},
	}
}

// parseWebhook refuses what is no URL. The daemon decides whether it takes one.
func parseWebhook(s string) (string, error) {
	u, err := url.Parse(s)
	if s != noWebhook && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http") {
		return "", errors.New("want a URL like https://example.com/in, or none")
	}
	return s, nil
}

// webhookPut is a webhook as a request makes it.
type webhookPut struct {
	URL      string   `json:"url"`
	Events   uint64   `json:"events,omitempty"`
	Requests uint64   `json:"requests,omitempty"`
	Secrets  []string `json:"secrets,omitempty"` // none: those that it has, or a new one
}

// webhookRow has the fields of a webhook in answers.
type webhookRow struct {
	URL       string `json:"url"`
	Events    uint64 `json:"events"`
	Requests  uint64 `json:"requests"`
	NewSecret string `json:"new_secret"`
	State     string `json:"state"`
}

// print prints what a webhook is after a change, nothing for nil. The secret that was made for it
// is in no other answer.
func (r *webhookRow) print(w io.Writer) error {
	if r == nil {
		return nil
	}
	_, err := fmt.Fprintf(w, "webhook %s gets %s a request, %s at a time\n",
		console.Printable(r.URL), console.Count(int64(r.Events), "event"),
		console.Count(int64(r.Requests), "request"))
	if err != nil || r.NewSecret == "" {
		return err
	}
	_, err = fmt.Fprintf(w, "its secret, which is not shown again: %s\n",
		console.Printable(r.NewSecret))
	return err
}

// wantedWebhook returns the webhook that the options make of the former one; nil means none, in
// either place.
func (s *subscriptionSession) wantedWebhook(former *webhookRow) (*webhookPut, error) {
	o := &s.hook
	changes := o.events != 0 || o.requests != 0 || o.secrets != ""
	switch {
	case o.url == noWebhook && changes:
		return nil, command.UsageError(errors.New("give either --webhook none or other options of " +
			"a webhook"))
	case o.url == noWebhook && former == nil:
		return nil, errors.New("--webhook none: there is no webhook to remove")
	case o.url == noWebhook:
		return nil, nil
	case former != nil:
		o.url = cmp.Or(o.url, former.URL)
		o.events, o.requests = cmp.Or(o.events, former.Events), cmp.Or(o.requests, former.Requests)
	case o.url == "" && changes:
		return nil, errors.New("options of a webhook need --webhook URL")
	case o.url == "":
		return nil, nil
	}
	secrets, err := s.secrets()
	return &webhookPut{o.url, o.events, o.requests, secrets}, err
}

// secrets returns the secrets of --webhook-secrets.
func (s *subscriptionSession) secrets() ([]string, error) {
	if s.hook.secrets == "" {
		return nil, nil
	}
	secrets, err := s.lines(s.hook.secrets, "secrets")
	if err == nil && len(secrets) == 0 {
		err = fmt.Errorf("--webhook-secrets %q: there is no secret in it", s.hook.secrets)
	}
	return secrets, err
}

// rotate replaces the secrets of a webhook, and nothing else.
func (s *subscriptionSession) rotate(ctx context.Context) error {
	name, err := s.name("")
	if err == nil && s.hook.secrets == "" {
		err = command.UsageError(fmt.Errorf("%s needs the secrets, the newest first, with "+
			"--webhook-secrets FILE; - is standard input", command.Subject(s.cmd)))
	}
	if err != nil {
		return err
	}
	r, err := s.find(ctx, name)
	switch {
	case err != nil:
		return err
	case r == nil:
		return fmt.Errorf("there is no subscription %s", name)
	case r.Webhook == nil:
		return fmt.Errorf("subscription %s has no webhook", name)
	}
	row := subscriptionPut{Filter: r.Filter, Share: r.Share}
	if row.Webhook, err = s.wantedWebhook(r.Webhook); err != nil {
		return err
	}
	return s.send(ctx, "PUT", "/"+name, row, s.moved("has "+
		console.Count(int64(len(row.Webhook.Secrets)), "secret")+", and goes on"))
}

// resume has a webhook send again, whatever has failed before.
func (s *subscriptionSession) resume(ctx context.Context) error {
	name, err := s.name("")
	if err != nil {
		return err
	}
	return s.send(ctx, "POST", "/"+name+"/resume", nil, s.moved("resumed"))
}
