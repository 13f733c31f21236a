package webhook

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"time"

	"cistern/api/deliver"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// bodyOf returns the body of a request: {"type":"events","timestamp":T,"data":[EVENT,...]}. T is
// the time of the newest event, now if there are only records of a snapshot, or a gap.
func bodyOf(messages []deliver.Message, now time.Time) []byte {
	size, newest := 0, int64(0)
	for _, m := range messages {
		size += len(m.Body) + 1
		newest = max(newest, m.Time)
	}
	if newest != 0 {
		now = time.UnixMicro(newest)
	}
	out := append(make([]byte, 0, size+80), `{"type":"events","timestamp":"`...)
	out = now.UTC().AppendFormat(out, "2006-01-02T15:04:05.000000Z07:00")
	out = append(out, `","data":`...)
	for i, m := range messages {
		out = append(append(out, "[,"[min(i, 1)]), m.Body...)
	}
	return append(out, `]}`...)
}

// idOf returns the id of a message: the same for the same events of a subscription of a store.
func idOf(name, epoch string, messages []deliver.Message) string {
	h := sha256.New()
	var n [8]byte
	for _, text := range []string{name, epoch} {
		binary.BigEndian.PutUint64(n[:], uint64(len(text)))
		h.Write(n[:])
		h.Write([]byte(text))
	}
	for _, m := range messages {
		binary.BigEndian.PutUint64(n[:], m.ID)
		h.Write(n[:])
	}
	return "msg_" + hex.EncodeToString(h.Sum(nil)[:16])
}

// signature returns the header that signs a request with each of some keys.
func signature(secrets [][]byte, id string, at time.Time, body []byte) (string, error) {
	all := make([]string, 0, len(secrets))
	for _, key := range secrets {
		signer, err := standardwebhooks.NewWebhookRaw(key)
		if err != nil {
			return "", err
		}
		one, err := signer.Sign(id, at, body)
		if err != nil {
			return "", err
		}
		all = append(all, one)
	}
	return strings.Join(all, " "), nil
}
