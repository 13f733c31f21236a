package atproto

import (
	"errors"
	"fmt"
	"slices"

	"cistern/api/wire"
	"cistern/ingest/repo"
	"cistern/store"
)

// GetRecord answers com.atproto.repo.getRecord.
func (r *Records) GetRecord(q wire.Query) ([]byte, error) {
	did, err := q.DID("repo")
	if err != nil {
		return nil, err
	}
	collection, err := q.Collection()
	if err != nil {
		return nil, err
	}
	if _, err := q.Required("rkey"); err != nil {
		return nil, err
	}
	rkey, err := q.RecordKey("rkey")
	if err != nil {
		return nil, err
	}
	var want repo.CID
	if text := q.Text("cid"); text != "" {
		if want, err = repo.ParseCID(text); err != nil {
			return nil, wire.Invalid("cid %s is not the CID of a record", wire.Echo(text))
		}
	}
	row, err := r.readable(did)
	if err != nil {
		return nil, err
	}
	q.Reflects(row.Rev)
	rec, err := r.store.Record(&row, collection, rkey)
	if errors.Is(err, store.ErrNotFound) || err == nil && want.Defined() && want != rec.CID {
		return nil, wire.Refuse("RecordNotFound", "could not locate record: at://%s/%s/%s", did, collection, rkey)
	}
	if err != nil {
		return nil, err
	}
	if want.Defined() {
		err = q.Version(rec.CID.String(), wire.CacheShortly)
	} else {
		err = q.Version(version(&row), wire.CacheNot)
	}
	if err != nil {
		return nil, err
	}
	return r.appendRecord(nil, did, &rec), nil
}

// version names the records of a repository: any change of them raises the number of the next
// block, or changes the number of records, the rev, the filter or the copy.
func version(row *store.Repo) string {
	return fmt.Sprintf("%s.%x.%x.%x.%x.%x", row.Rev, row.Ordinal, row.NextBlock, row.Records, row.Shelved, row.Filter)
}

// appendRecord appends {"uri","cid","value"}, or {"uri","cid","unrepresentable"} for a record that
// has no JSON form.
func (r *Records) appendRecord(dst []byte, did string, rec *store.Record) []byte {
	// DIDs, collections and record keys have no characters that JSON escapes.
	out := append(append(dst, `{"uri":"at://`...), did...)
	out = append(append(out, '/'), rec.Collection...)
	out = append(append(out, '/'), rec.Rkey...)
	out = append(rec.CID.AppendText(append(out, `","cid":"`...)), '"')
	out, ok := wire.AppendBody(out, "value", rec.Record)
	if !ok {
		r.refused.Inc()
	}
	return append(out, '}')
}

// ListRecords answers com.atproto.repo.listRecords. A page ends early if it becomes too large. The
// cursor is the last record key of the page. As on the reference PDS, a list ends with an empty
// page, which has no cursor.
func (r *Records) ListRecords(q wire.Query) ([]byte, error) {
	did, err := q.DID("repo")
	if err != nil {
		return nil, err
	}
	collection, err := q.Collection()
	if err != nil {
		return nil, err
	}
	limit, err := q.Limit(50, 100)
	if err != nil {
		return nil, err
	}
	reverse, err := q.Bool("reverse")
	if err != nil {
		return nil, err
	}
	row, err := r.readable(did)
	if err != nil {
		return nil, err
	}
	q.Reflects(row.Rev)
	if err := q.Version(version(&row), wire.CacheNot); err != nil {
		return nil, err
	}
	// Any text is a position among the keys, as on the reference PDS.
	return r.recordPage(&row, collection, q.Text("cursor"), limit, reverse)
}

func (r *Records) recordPage(
	row *store.Repo, collection, cursor string, limit int, reverse bool,
) ([]byte, error) {
	out, more, first := []byte(`{"records":[`), true, cursor
	for start := len(out); more && limit > 0 && len(out) < pageBytesMax; {
		step := min(limit, pageStep)
		read, err := r.store.ListRecords(row, collection, cursor, step, reverse)
		if err != nil {
			return nil, err
		}
		more = len(read) == step
		if len(out) == start {
			out = slices.Grow(out, min(pageBytesMax, textBytes(read)*limit/step))
		}
		for i := range read {
			mark := len(out)
			if mark >= pageBytesMax {
				more = true
				break
			}
			if mark > start {
				out = append(out, ',')
			}
			out = r.appendRecord(out, row.DID, &read[i])
			cursor = read[i].Rkey
		}
		limit -= step
	}
	out = append(out, ']')
	if cursor != first {
		out = wire.AppendString(append(out, `,"cursor":`...), cursor)
	}
	return append(out, '}'), nil
}

// textBytes estimates the length of records as JSON.
func textBytes(records []store.Record) (n int) {
	for i := range records {
		const around = 200 // the URI, the CID and what stands between them
		n += around + len(records[i].Record)*5/4
	}
	return n
}
