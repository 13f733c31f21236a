package admin

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"cistern/api/wire"
)

// Ingestion has the switches of the parts of the daemon that bring data in.
type Ingestion struct {
	Crawler, Firehose, Backfill Switch
}

// Switch turns a part on and off. A part that is turned off finishes its work under way. Both
// functions may be called by any goroutine; a part without them is off.
type Switch struct {
	On  func() bool
	Set func(on bool)
	// Paused returns the reasons why the part is paused, as sentences: the switch, or a cause of
	// the daemon, such as a full disk.
	Paused func() []string
}

func (i *Ingestion) switches() map[string]*Switch {
	return map[string]*Switch{"crawler": &i.Crawler, "firehose": &i.Firehose, "backfill": &i.Backfill}
}

// positions returns the positions of the switches.
func (i *Ingestion) positions() map[string]bool {
	positions := map[string]bool{}
	for name, part := range i.switches() {
		positions[name] = part.On != nil && part.On()
	}
	return positions
}

// paused returns the reasons of the parts that are paused.
func (i *Ingestion) paused() map[string][]string {
	paused := map[string][]string{}
	for name, part := range i.switches() {
		if part.Paused == nil {
			continue
		}
		if reasons := part.Paused(); len(reasons) > 0 {
			paused[name] = reasons
		}
	}
	return paused
}

// show handles GET /ingestion.
func (i *Ingestion) show(w http.ResponseWriter, _ *http.Request) error {
	wire.WriteJSON(w, http.StatusOK, i.positions())
	return nil
}

// set handles PATCH /ingestion. It answers as GET does, and changes nothing if any
// value of the body is invalid.
func (i *Ingestion) set(w http.ResponseWriter, r *http.Request) error {
	var body map[string]json.RawMessage
	if err := wire.ReadObject(w, r, objectBytesMax, &body); err != nil {
		return err
	}
	switches := i.switches()
	wanted := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(body)) {
		part := switches[name]
		if part == nil {
			return wire.Invalid("%s is not a part of ingestion: want %s",
				wire.Echo(name), strings.Join(slices.Sorted(maps.Keys(switches)), ", "))
		}
		text := string(body[name])
		if text != "true" && text != "false" {
			return wire.Invalid("%s is %s: want true or false", name, wire.Echo(text))
		}
		if part.Set == nil {
			return wire.Invalid("this daemon has no %s", name)
		}
		wanted[name] = text == "true"
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		switches[name].Set(wanted[name])
	}
	return i.show(w, r)
}
