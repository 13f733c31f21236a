package admin

import (
	"context"
	"errors"
	"net/http"
	"time"

	"cistern/api/wire"
	"cistern/maintain"
)

// maintenance shows, requests and cancels operations of maintenance.
type maintenance struct{ coordinator *maintain.Coordinator }

// operationItem describes an operation in the answer of GET /maintenance.
type operationItem struct {
	Name      string             `json:"name"`
	State     maintain.Condition `json:"state"`
	Waits     string             `json:"waits,omitempty"`
	NeededBy  []string           `json:"needed_by,omitempty"`
	Requested bool               `json:"requested,omitempty"`
	Since     string             `json:"since,omitempty"`
	Progress  *progressItem      `json:"progress,omitempty"`
	Ended     string             `json:"ended,omitempty"`
	Succeeded string             `json:"succeeded,omitempty"`
	Error     string             `json:"error,omitempty"`
	Failures  int                `json:"failures"`
	Due       string             `json:"due,omitempty"`
	Every     float64            `json:"every_seconds,omitempty"`
	Hours     string             `json:"hours,omitempty"`
}

// progressItem is how far a run is.
type progressItem struct {
	Done      int64  `json:"done"`
	Total     int64  `json:"total,omitempty"`
	Item      string `json:"item,omitempty"`
	ItemDone  int64  `json:"item_done,omitempty"`
	ItemTotal int64  `json:"item_total,omitempty"`
}

// maintenanceItem is the answer of GET /maintenance.
type maintenanceItem struct {
	Paused     string          `json:"paused,omitempty"`
	DiskShort  string          `json:"disk_short,omitempty"`
	Exhausted  bool            `json:"disk_exhausted,omitempty"`
	Operations []operationItem `json:"operations"`
}

func newOperationItem(s maintain.Status) operationItem {
	it := operationItem{Name: s.Name, State: s.Condition, Waits: s.Waits, NeededBy: s.NeededBy,
		Requested: s.Requested, Since: moment(s.Since), Ended: moment(s.Ended),
		Succeeded: moment(s.Succeeded), Error: s.Error, Failures: s.Failures, Due: moment(s.Due)}
	if it.Every = s.Every.Seconds(); s.Hours != (maintain.Hours{}) {
		it.Hours = s.Hours.String()
	}
	if s.Work != (maintain.Work{}) {
		p := progressItem(s.Work)
		it.Progress = &p
	}
	return it
}

// show handles GET /maintenance.
func (m *maintenance) show(w http.ResponseWriter, _ *http.Request) error {
	wire.WriteJSON(w, http.StatusOK, m.view())
	return nil
}

// view returns the operations.
func (m *maintenance) view() maintenanceItem {
	var view maintain.View
	if m.coordinator != nil {
		view = m.coordinator.View()
	}
	answer := maintenanceItem{Paused: view.Paused, DiskShort: view.Shortage,
		Exhausted: view.Exhausted, Operations: []operationItem{}}
	for _, s := range view.Operations {
		answer.Operations = append(answer.Operations, newOperationItem(s))
	}
	return answer
}

// run handles POST /maintenance/{operation}: it requests a run, and awaits its result with
// ?wait=true. Then the request is taken back when the connection closes.
func (m *maintenance) run(w http.ResponseWriter, r *http.Request) error {
	q, err := wire.ParseQuery(r)
	if err != nil {
		return err
	}
	wait, err := q.Bool("wait")
	if err != nil {
		return err
	}
	name := r.PathValue("operation")
	if m.coordinator == nil {
		return operationRefusal(name, maintain.ErrUnknown)
	}
	if !wait {
		if err := m.coordinator.Schedule(name); err != nil {
			return operationRefusal(name, err)
		}
		writeOperation(w, http.StatusAccepted, name, "requested")
		return nil
	}
	if err := wire.DiscardBody(w, r, objectBytesMax); err != nil {
		return err
	}
	// A run may take days. The deadline of answers would end the connection before, and with it the
	// request. The server reads without a deadline once it has a request.
	if err := http.NewResponseController(w).SetWriteDeadline(time.Time{}); err != nil {
		return err
	}
	if err := m.coordinator.Await(r.Context(), name); err != nil {
		return operationRefusal(name, err)
	}
	writeOperation(w, http.StatusOK, name, "done")
	return nil
}

// cancel handles DELETE /maintenance/{operation}.
func (m *maintenance) cancel(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("operation")
	if m.coordinator == nil {
		return operationRefusal(name, maintain.ErrUnknown)
	}
	found, err := m.coordinator.Cancel(name)
	if err != nil {
		return operationRefusal(name, err)
	}
	result := "cancelled"
	if !found {
		result = "idle"
	}
	writeOperation(w, http.StatusOK, name, result)
	return nil
}

func writeOperation(w http.ResponseWriter, status int, name, result string) {
	wire.WriteJSON(w, status, map[string]string{"name": name, "result": result})
}

// optional are the operations that a daemon has with an option only, and what to do without it.
var optional = map[string]string{
	"backup":  "start it with --backup DEST, or make one backup by 'cistern backup DEST'",
	"export":  "start it with --export DEST, or export once by 'cistern export'",
	"offload": "start it with --offload DEST",
}

// operationRefusal returns the answer to a request that failed.
func operationRefusal(name string, err error) error {
	switch {
	case errors.Is(err, maintain.ErrUnknown) && optional[name] != "":
		return wire.Refuse("NotFound", "this daemon has no operation %s: %s", name, optional[name])
	case errors.Is(err, maintain.ErrUnknown):
		return wire.Refuse("NotFound", "there is no operation %s", wire.Echo(name))
	case errors.Is(err, maintain.ErrCancelled):
		return wire.Refuse("Conflict", "%s: %v", name, err)
	case errors.Is(err, maintain.ErrBusy):
		return wire.Refuse("RateLimitExceeded", "%v", err)
	case errors.Is(err, maintain.ErrStopped):
		return wire.Refuse("Unavailable", "%v: the daemon stops", err)
	case errors.Is(err, context.Canceled):
		return err
	}
	return wire.Refuse("OperationFailed", "%s: %v", name, err)
}
