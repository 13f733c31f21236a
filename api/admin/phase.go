package admin

import (
	"context"
	"errors"
	"net/http"
	"time"

	"cistern/api/wire"
	"cistern/phase"
)

// phaseWait is how long PUT /phase waits until the phase is reached.
const phaseWait = 10 * time.Second

// phaseFor is how long a phase lasts if the request does not say.
const phaseFor = 10 * time.Minute

// phases shows and changes the phase of the daemon.
type phases struct {
	keeper *phase.Keeper // nil: there are no phases
}

// phaseBody is an answer of /phase.
type phaseBody struct {
	Phase   string     `json:"phase"`
	Wanted  string     `json:"wanted"`
	Reached bool       `json:"reached"`
	Since   time.Time  `json:"since"`
	Until   *time.Time `json:"until,omitempty"`
	Reason  string     `json:"reason,omitempty"`
	Busy    []string   `json:"busy,omitempty"`
	Failure string     `json:"failure,omitempty"`
}

func bodyOfPhase(st phase.Status) phaseBody {
	b := phaseBody{Phase: st.Phase.String(), Wanted: st.Wanted.String(), Reached: st.Reached,
		Since: st.Since.UTC().Round(time.Millisecond), Reason: st.Reason, Busy: st.Busy,
		Failure: st.Failure}
	if !st.Until.IsZero() {
		until := st.Until.UTC().Round(time.Millisecond)
		b.Until = &until
	}
	return b
}

// unlessActive returns the phase for /stats, nil while the daemon is active and is to stay so.
func (p phases) unlessActive() *phaseBody {
	if p.keeper == nil {
		return nil
	}
	st := p.keeper.Status()
	if st.Phase == phase.Active && st.Reached {
		return nil
	}
	b := bodyOfPhase(st)
	return &b
}

// show handles GET /phase.
func (p phases) show(w http.ResponseWriter, _ *http.Request) error {
	if p.keeper == nil {
		return wire.Refuse("MethodNotImplemented", "this daemon has no phases")
	}
	wire.WriteJSON(w, http.StatusOK, bodyOfPhase(p.keeper.Status()))
	return nil
}

// set handles PUT /phase. It answers as GET does: with 200 when the phase is reached, or after
// phaseWait with 202 and what is still busy.
func (p phases) set(w http.ResponseWriter, r *http.Request) error {
	if p.keeper == nil {
		return wire.Refuse("MethodNotImplemented", "this daemon has no phases")
	}
	var body struct {
		Phase string  `json:"phase"`
		For   *string `json:"for"`
	}
	if err := wire.ReadObject(w, r, objectBytesMax, &body); err != nil {
		return err
	}
	wanted, err := phase.Parse(body.Phase)
	if err != nil {
		return wire.Invalid("%s", err)
	}
	d := phaseFor
	if body.For != nil {
		if wanted == phase.Active {
			return wire.Invalid("for %s: the phase active has no end", wire.Echo(*body.For))
		}
		if d, err = time.ParseDuration(*body.For); err != nil {
			return wire.Invalid("for %s: want a duration such as 90s, 10m or 2h",
				wire.Echo(*body.For))
		}
	}
	err = p.keeper.Request(wanted, d)
	if errors.Is(err, phase.ErrStopping) || errors.Is(err, phase.ErrSuspended) {
		return wire.Refuse("Conflict", "the phase stays: %s", err)
	} else if err != nil {
		return wire.Invalid("%s", err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), phaseWait)
	defer cancel()
	st, code := p.keeper.Await(ctx), http.StatusOK
	if !st.Reached {
		code = http.StatusAccepted
	}
	wire.WriteJSON(w, code, bodyOfPhase(st))
	return nil
}
