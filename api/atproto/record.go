package atproto

import (
	"errors"
	"fmt"

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
		return nil, wire.Refuse("RecordNotFound", "could not locate record: at://%s/%s/%s",
			did, collection, rkey)
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
	return r.appendRecord(nil, recordURI(did, collection),
		&store.Listed{Rkey: []byte(rec.Rkey), CID: rec.CID, Record: rec.Record}), nil
}

// version names the records of a repository: any change of them raises the number of the next
// block, or changes the number of records, the rev, the filter or the copy.
func version(row *store.Repo) string {
	return fmt.Sprintf("%s.%x.%x.%x.%x.%x", row.Rev, row.Ordinal, row.NextBlock, row.Records,
		row.Shelved, row.Filter)
}

// recordURI begins the URI of each record of a collection.
func recordURI(did, collection string) string {
	// DIDs, collections and record keys have no characters that JSON escapes.
	return `{"uri":"at://` + did + "/" + collection + "/"
}

// appendRecord appends {"uri","cid","value"}, or {"uri","cid","unrepresentable"} for a record that
// has no JSON form.
func (r *Records) appendRecord(dst []byte, uri string, rec *store.Listed) []byte {
	out := append(append(dst, uri...), rec.Rkey...)
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
	body, err := r.appendPage(append(q.Buffer.Bytes(), `{"records":[`...), &row, collection,
		q.Text("cursor"), limit, reverse)
	q.Buffer.Keep(body)
	return body, err
}

// appendPage appends the records of a page, and the rest of the answer.
func (r *Records) appendPage(
	out []byte, row *store.Repo, collection, cursor string, limit int, reverse bool,
) ([]byte, error) {
	uri := recordURI(row.DID, collection)
	var last []byte
	err := r.store.EachRecordOf(row, collection, cursor, reverse, func(rec *store.Listed) bool {
		if last != nil {
			out = append(out, ',')
		}
		out = r.appendRecord(out, uri, rec)
		last = append(last[:0], rec.Rkey...)
		limit--
		return limit > 0 && len(out) < pageBytesMax
	})
	if err != nil {
		return out, err
	}
	out = append(out, ']')
	if last != nil {
		out = wire.AppendString(append(out, `,"cursor":`...), last)
	}
	return append(out, '}'), nil
}
