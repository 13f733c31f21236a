package admin

import (
	"net/http"

	"cistern/api/wire"
	"cistern/condition"
)

// conditions shows what backfill and crawling wait for.
type conditions struct{ status func() []condition.Status }

// conditionItem is a condition as /stats shows it, without names and paths.
type conditionItem struct {
	Name   string          `json:"name"`
	State  condition.State `json:"state"`
	Since  string          `json:"since"`
	Reason string          `json:"reason"`
}

// operatorCondition is a condition as GET /conditions shows it.
type operatorCondition struct {
	conditionItem
	Subject string `json:"subject,omitempty"`
	Error   string `json:"error,omitempty"`
}

func newConditionItem(s condition.Status) conditionItem {
	return conditionItem{Name: s.Name, State: s.State, Since: moment(s.Since), Reason: s.Reason}
}

// items returns the conditions for /stats.
func (c conditions) items() (all []conditionItem) {
	for _, s := range c.status() {
		all = append(all, newConditionItem(s))
	}
	return all
}

// operators returns the conditions as the operator sees them.
func (c conditions) operators() []operatorCondition {
	all := []operatorCondition{}
	for _, s := range c.status() {
		all = append(all, operatorCondition{newConditionItem(s), s.Subject, s.Error})
	}
	return all
}

// show handles GET /conditions.
func (c conditions) show(w http.ResponseWriter, _ *http.Request) error {
	wire.WriteJSON(w, http.StatusOK, struct {
		Conditions []operatorCondition `json:"conditions"`
	}{c.operators()})
	return nil
}
