package main

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"cistern/cmd/cistern/command"
	"cistern/ingest/simnet"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// hooked is a receiver of requests, and the commands that have a daemon make them.
type hooked struct {
	t        *testing.T
	environ  []string
	url      string
	requests chan received // the newest; older ones may be left out
}

type received struct {
	header http.Header
	body   []byte
}

func newHooked(t *testing.T, admin string) *hooked {
	h := &hooked{t: t, requests: make(chan received, 100),
		// A variable of a daemon on the same machine is not an option of the commands.
		environ: []string{"CISTERN_ADMIN=" + admin, "CISTERN_COLLECTION=app.test.none"}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the daemon ends
		}
		if r.URL.Path == "/gone" {
			w.WriteHeader(http.StatusGone)
			return
		}
		for {
			select {
			case h.requests <- received{r.Header, body}:
				return
			default:
			}
			select { // it is full
			case <-h.requests:
			default:
			}
		}
	}))
	t.Cleanup(srv.Close)
	h.url = srv.URL
	return h
}

func (h *hooked) command(stdin string, args ...string) (string, error) {
	var out bytes.Buffer
	a := &app{Process: command.Process{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &out, Environ: h.environ}}
	err := a.run(h.t.Context(), append([]string{"subscription"}, args...))
	return out.String(), err
}

// ok runs a command, whose output must have all of want.
func (h *hooked) ok(stdin string, args []string, want ...string) (out string) {
	h.t.Helper()
	out, err := h.command(stdin, args...)
	if err != nil {
		h.t.Fatalf("%v: %v", args, err)
	}
	for _, w := range want {
		if !strings.Contains(out, w) {
			h.t.Errorf("%v: %q does not contain %q", args, out, w)
		}
	}
	return out
}

// fails runs a command, whose error must have want.
func (h *hooked) fails(stdin string, args []string, want string) {
	h.t.Helper()
	out, err := h.command(stdin, args...)
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error()+out, "whsec_MD") {
		h.t.Errorf("%v: %q, %v, want %q", args, out, err, want)
	}
}

// signed waits for a request that each of these secrets, and no other, has signed.
func (h *hooked) signed(secrets ...string) {
	h.t.Helper()
	for end := time.After(20 * time.Second); ; {
		select {
		case r := <-h.requests:
			good := 0
			for _, secret := range secrets {
				hook, err := standardwebhooks.NewWebhook(secret)
				if err != nil {
					h.t.Fatal(err)
				}
				if hook.Verify(r.body, r.header) == nil {
					good++
				}
			}
			if good == len(secrets) && strings.Count(r.header.Get("webhook-signature"), "v1,") == good {
				return
			}
		case <-end:
			h.t.Fatalf("no request is signed with %d secrets", len(secrets))
		}
	}
}

// TestWebhookCommands makes and changes webhooks by commands, and receives their requests.
func TestWebhookCommands(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 3, Repos: 2, Hosts: 1})
	x := newTestIndex(t)
	x.start(t, x.args(n))
	if err := x.call(t.Context(), "PUT", "/repos", n.DIDs(), func([]byte) error { return nil }); err != nil {
		t.Fatal(err)
	}
	x.settle(t, map[string]int64{"synced": 2})
	h := newHooked(t, x.admin)
	in := h.url + "/in?a=b"

	// The daemon makes a secret, which nothing shows again.
	out := h.ok("", []string{"add", "hook", "--start", "oldest", "--webhook", in, "--webhook-events", "2", "--webhook-requests", "1"},
		"hook added from event 1 on", "webhook "+in+" gets 2 events a request, 1 request at a time\n", "which is not shown again: whsec_")
	made := regexp.MustCompile(`whsec_\S+`).FindString(out)
	h.signed(made)
	again := h.ok("", []string{"show", "hook"}, "webhook url        "+in, "webhook events     2", "webhook secrets    1", "webhook state ") +
		h.ok("", []string{"ls"}, "\nhook  webhook ") + h.ok("", []string{"ls", "--json"}) +
		h.ok("", []string{"resume", "hook"}, "hook resumed from event ")

	// What is not named of the webhook stays.
	again += h.ok("", []string{"add", "hook", "--replace", "--kind", "record"}, "hook changed", "gets 2 events a request, 1 request at") +
		h.ok("", []string{"add", "hook", "--replace", "--kind", "record", "--webhook-events", "50"}, "gets 50 events a request, 1 request at")
	h.ok("", []string{"replay", "hook", "oldest"})
	h.signed(made)

	// A secret is replaced by two steps. The filter stays.
	const secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
	file := filepath.Join(t.TempDir(), "secrets")
	if err := os.WriteFile(file, []byte("# ours\n\n"+secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	again += h.ok(secret+"\n"+made, []string{"rotate", "hook", "--webhook-secrets", "-"}, "hook has 2 secrets, and goes on from event ", "gets 50 events")
	h.ok("", []string{"replay", "hook", "oldest"})
	h.signed(secret, made)
	again += h.ok("", []string{"rotate", "hook", "--webhook-secrets", file}, "hook has 1 secret, and goes on") +
		h.ok("", []string{"show", "hook"}, `filter kinds       ["record"]`, "webhook secrets    1")
	h.ok("", []string{"replay", "hook", "oldest"})
	h.signed(secret)

	// An endpoint that is gone parks the webhook; another one resumes it.
	h.ok("", []string{"add", "hook", "--replace", "--webhook", h.url + "/gone"})
	h.ok("", []string{"replay", "hook", "oldest"})
	x.await(t, "the webhook is parked", func() error {
		if out := h.ok("", []string{"ls"}); !strings.Contains(out, "webhook parked") {
			return errors.New(out)
		}
		return nil
	})
	h.ok("", []string{"add", "hook", "--replace", "--webhook", in})
	h.signed(secret)
	again += h.ok("", []string{"add", "hook", "--replace", "--webhook", "none", "--share", "did"}, "hook changed")
	h.ok("", []string{"ls"}, "\nhook  0 ")
	if strings.Contains(again, "whsec_") {
		t.Errorf("a secret is shown again: %s", again)
	}

	again = h.ok("", []string{"add", "given", "--webhook", in, "--webhook-secrets", file}, "gets 1 event a request, 4 requests at")
	if strings.Contains(again, "whsec_") {
		t.Errorf("a secret that was given is shown: %s", again)
	}
	h.ok("", []string{"add", "--json", "json", "--webhook", in}, `"new_secret":"whsec_`)
	h.mistakes(in)
}

// mistakes gives wrong options. Errors name the value, but no secret.
func (h *hooked) mistakes(in string) {
	h.t.Helper()
	const weak = "whsec_MDEyMw=="
	hook := func(more ...string) []string { return append([]string{"add", "x", "--webhook", in}, more...) }
	h.fails("", []string{"add", "x", "--webhook", "example.com/in"}, `--webhook "example.com/in": want a URL`)
	h.fails("", []string{"add", "x", "--webhook", "ftp://example.com/in"}, "want a URL")
	h.fails("", hook("--webhook-events", "101"), `--webhook-events "101": want a number from 1 to 100`)
	h.fails("", hook("--webhook-requests", "0"), `--webhook-requests "0"`)
	h.fails("", hook("--webhook-secrets", "/nowhere/at-all"), "/nowhere/at-all")
	h.fails("\n# none\n", hook("--webhook-secrets", "-"), `--webhook-secrets "-": there is no secret in it`)
	h.fails(weak, hook("--webhook-secrets", "-"), "webhook.secrets[0]: want whsec_ and the base64 of 24 to 64")
	h.fails(strings.Repeat(weak+"\n", 5), hook("--webhook-secrets", "-"), "webhook.secrets has 5: want 4 at most")
	h.fails("", hook("--share", "did"), `share "did": a webhook has no connections`)
	h.fails("", []string{"add", "x", "--webhook-events", "3"}, "options of a webhook need --webhook URL")
	h.fails("", []string{"add", "x", "--webhook", "none"}, "there is no webhook to remove")
	h.fails("", []string{"add", "given", "--replace", "--webhook", "none", "--webhook-events", "3"}, "either --webhook none or")
	h.fails("", []string{"rotate", "given"}, "rotate needs the secrets")
	h.fails(weak, []string{"rotate", "absent", "--webhook-secrets", "-"}, "no subscription absent")
	h.fails(weak, []string{"rotate", "hook", "--webhook-secrets", "-"}, "subscription hook has no webhook")
	h.fails("", []string{"resume", "hook"}, "subscription hook has no webhook")
	h.ok("", []string{"rotate", "--help"}, "the new secret and the old one", "cat new old | cistern")
}
