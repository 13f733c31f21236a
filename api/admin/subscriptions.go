package admin

import (
	"net/http"

	"cistern/api/durable"
	"cistern/api/wire"
)

// subscriptions shows and changes the durable subscriptions.
type subscriptions struct{ registry *durable.Registry }

// list handles GET /subscriptions.
func (s *subscriptions) list(w http.ResponseWriter, r *http.Request) error {
	return wire.WriteList(w, r, s.registry.All())
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
