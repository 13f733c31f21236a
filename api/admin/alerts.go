package admin

import (
	"net/http"

	"cistern/alert"
	"cistern/api/wire"
)

// alerts shows what fails.
type alerts struct{ subjects func() []alert.Subject }

// alertItem is a subject that fails, in the answer of GET /alerts.
type alertItem struct {
	Kind     alert.Kind  `json:"kind"`
	Subject  string      `json:"subject"`
	State    alert.State `json:"state"`
	Since    string      `json:"since"`
	Alerted  string      `json:"alerted,omitempty"`
	Attempts int         `json:"attempts"`
	Error    string      `json:"error"`
	Runbook  string      `json:"runbook"`
	Due      string      `json:"due,omitempty"` // the earliest time of the alert, in grace
	Least    int         `json:"attempts_least,omitempty"`
}

func newAlertItem(s *alert.Subject) alertItem {
	return alertItem{s.Kind, s.Name, s.Now, moment(s.Since), moment(s.Alerted), s.Attempts, s.Error,
		alert.Runbook(s.Kind), moment(s.Due), s.Least}
}

// list handles GET /alerts.
func (a alerts) list(w http.ResponseWriter, r *http.Request) error {
	q, err := wire.ParseQuery(r)
	if err != nil {
		return err
	}
	limit, err := q.Limit(100, 1000)
	if err != nil {
		return err
	}
	state := alert.State(q.Text("state"))
	if state != "" && state != alert.Grace && state != alert.Alert {
		return wire.Invalid("state %s: want %s, %s", wire.Echo(string(state)), alert.Grace,
			alert.Alert)
	}
	items, next, cursor := []alertItem{}, "", q.Text("cursor")
	for _, s := range a.subjects() {
		key := string(s.Kind) + " " + s.Name
		if key <= cursor || state != "" && s.Now != state {
			continue
		}
		if len(items) == limit {
			last := items[limit-1]
			next = string(last.Kind) + " " + last.Subject
			break
		}
		items = append(items, newAlertItem(&s))
	}
	q.LinkNext(w, r.URL.Path, next)
	return wire.WriteList(w, r, items)
}
