package admin

import (
	"errors"
	"net/http"
	"time"

	"cistern/api/wire"
	"cistern/copies"
	"cistern/verdict"
)

// copyRoutes shows the copies that commands make from checkpoints, and takes their results.
type copyRoutes struct{ registry *copies.Registry }

// registry returns the registry of copies, a new one if the options have none.
func (o Options) registry() (*copies.Registry, error) {
	if o.Copies != nil {
		return o.Copies, nil
	}
	return copies.New(copies.Options{Logger: o.Logger})
}

// copyItem is the last result of one kind and destination.
type copyItem struct {
	Kind        copies.Kind `json:"kind"`
	Destination string      `json:"destination"`
	Running     int         `json:"running"` // copies under way
	Since       string      `json:"since,omitempty"`
	Ended       string      `json:"ended,omitempty"`
	Succeeded   string      `json:"succeeded,omitempty"`
	Generation  string      `json:"generation,omitempty"`
	Bytes       int64       `json:"bytes,omitempty"`
	Seconds     float64     `json:"seconds,omitempty"`
	Error       string      `json:"error,omitempty"`
	Failures    int         `json:"failures"`
}

// items returns all results: backups first, and of each kind first what was used last.
func (c copyRoutes) items() []copyItem {
	all := []copyItem{}
	for _, s := range c.registry.View() {
		all = append(all, copyItem{Kind: s.Kind, Destination: s.Destination, Running: s.Running,
			Since: moment(s.Began), Ended: moment(s.Ended), Succeeded: moment(s.Succeeded),
			Generation: s.Generation, Bytes: s.Bytes, Seconds: s.Took.Seconds(), Error: s.Error,
			Failures: s.Failures})
	}
	return all
}

// failing returns the destinations of backups where the last one failed. A destination that never
// had a complete backup may be a mistake in a command line, and is left out after
// firstFailureShown.
func (c copyRoutes) failing(now time.Time) (all []verdict.Backup) {
	for _, s := range c.registry.View() {
		if s.Kind == copies.Backup && s.Failures > 0 &&
			(!s.Succeeded.IsZero() || now.Sub(s.Ended) < firstFailureShown) {
			all = append(all, verdict.Backup{Destination: s.Destination, Ended: s.Ended, Error: s.Error})
		}
	}
	return all
}

// list handles GET /copies.
func (c copyRoutes) list(w http.ResponseWriter, _ *http.Request) error {
	wire.WriteJSON(w, http.StatusOK, struct {
		Copies []copyItem `json:"copies"`
	}{c.items()})
	return nil
}

// report handles PUT /copies/{id}/result. While the daemon is suspended the result is shown at
// once, and the answer comes when it is saved.
func (c copyRoutes) report(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Complete   bool   `json:"complete"`
		Generation string `json:"generation"`
		Bytes      int64  `json:"bytes"`
		Error      string `json:"error"`
	}
	if err := wire.ReadObject(w, r, copyBytesMax, &body); err != nil {
		return err
	}
	res := copies.Result(body)
	if err := res.Validate(); err != nil {
		return wire.Invalid("%v", err)
	}
	if err := http.NewResponseController(w).SetWriteDeadline(time.Time{}); err != nil {
		return err
	}
	id := r.PathValue("id")
	err := c.registry.Report(id, res)
	if errors.Is(err, copies.ErrUnknown) {
		return wire.Refuse("NotFound", "no copy %s is under way: it has a result already, or its "+
			"request for a checkpoint has ended", wire.Echo(id))
	}
	if err != nil {
		return err
	}
	wire.WriteJSON(w, http.StatusOK, map[string]string{"id": id, "result": "saved"})
	return nil
}

// readStatement reads what a command wants the checkpoint for. ok is false if the
// body is empty or an empty object: older commands do not state it, and their copies are not
// recorded.
func readStatement(
	w http.ResponseWriter, r *http.Request,
) (s copies.Statement, ok bool, err error) {
	var body struct {
		Kind        copies.Kind `json:"kind"`
		Destination string      `json:"destination"`
	}
	if r.ContentLength == 0 {
		return s, false, nil
	}
	if err := wire.ReadObject(w, r, copyBytesMax, &body); err != nil {
		return s, false, err
	}
	if s = copies.Statement(body); s == (copies.Statement{}) {
		return s, false, nil
	}
	if err := s.Validate(); err != nil {
		return s, false, wire.Invalid("%v", err)
	}
	return s, true, nil
}
