package atproto

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"

	"cistern/api/wire"
	"cistern/ingest/identity"
	"cistern/store"
)

// HostStatus is the current status of a host, which its row does not have.
type HostStatus struct {
	// Status is the word of the protocol: active, idle, offline, throttled or banned.
	Status string
	// Seq is the newest event that was read from its firehose, 0 if the firehose is not followed.
	Seq int64
}

type hostItem struct {
	Hostname     string `json:"hostname"`
	Seq          int64  `json:"seq,omitempty"`
	AccountCount int64  `json:"accountCount"`
	Status       string `json:"status"`
}

type hostPage struct {
	Cursor string     `json:"cursor,omitempty"`
	Hosts  []hostItem `json:"hosts"`
}

// ListHosts answers com.atproto.sync.listHosts: all known hosts, in the order of discovery. The
// cursor is the number of the last host.
func (r *Records) ListHosts(q wire.Query) ([]byte, error) {
	limit, err := q.Limit(200, 1000)
	if err != nil {
		return nil, err
	}
	after, err := numberCursor(q, math.MaxUint32)
	if err != nil {
		return nil, err
	}
	hosts, err := r.store.HostsByID(uint32(after), limit)
	if err != nil {
		return nil, err
	}
	status := r.hosts()
	page := hostPage{Hosts: []hostItem{}}
	for i := range hosts {
		page.Hosts = append(page.Hosts, item(&hosts[i], status))
	}
	if len(hosts) > 0 {
		page.Cursor = strconv.FormatUint(uint64(hosts[len(hosts)-1].ID), 10)
	}
	return json.Marshal(page)
}

// GetHostStatus answers com.atproto.sync.getHostStatus.
func (r *Records) GetHostStatus(q wire.Query) ([]byte, error) {
	text, err := q.Required("hostname")
	if err != nil {
		return nil, err
	}
	origin, err := identity.ParseOrigin(text)
	if err != nil {
		return nil, wire.Invalid("hostname %s is not the name of a host", wire.Echo(text))
	}
	name := identity.HostOf(origin)
	h, err := r.store.HostNamed(name)
	if errors.Is(err, store.ErrNotFound) || err == nil && h.Name == "" { // evicted a moment ago
		return nil, wire.Refuse("HostNotFound", "no host %s is known", wire.Echo(name))
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(item(&h, r.hosts()))
}

func item(h *store.Host, status func(*store.Host) HostStatus) hostItem {
	s := status(h)
	return hostItem{Hostname: h.Name, Seq: s.Seq, AccountCount: h.Accounts, Status: s.Status}
}
