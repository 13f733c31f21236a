package dump

import (
	"errors"
	"io"
	"strconv"

	"cistern/ingest/repo/recordjson"
	"cistern/store"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
)

// columns is the schema of a file. A column whose values repeat has a dictionary. In the others
// nearly every value is another one, and a dictionary would only take memory.
type columns struct {
	DID             []byte `parquet:"did,string,dict"`
	Collection      []byte `parquet:"collection,string,dict"`
	Rkey            []byte `parquet:"rkey,string"`
	CID             []byte `parquet:"cid,string"`
	Rev             []byte `parquet:"rev,string,dict"`
	IndexedAt       int64  `parquet:"indexed_at,optional,timestamp(microsecond)"`
	CreatedAt       int64  `parquet:"created_at,optional,timestamp(microsecond)"`
	Record          []byte `parquet:"record,optional,json"`
	Unrepresentable []byte `parquet:"unrepresentable,optional,string,dict"`
}

// wideColumns is the schema with the bytes of records.
type wideColumns struct {
	columns
	CBOR []byte `parquet:"cbor"`
}

// The numbers of the columns.
const (
	colDID = iota
	colCollection
	colRkey
	colCID
	colRev
	colIndexed
	colCreated
	colRecord
	colReason
	colCBOR
	colsMax
)

// Names of the metadata in the footer of a file.
const (
	metaEpoch  = "cistern.epoch"
	metaHead   = "cistern.head"
	metaResume = "cistern.resume" // a token; missing if the file has the last record
)

// parquetFile writes a file of Parquet, row group by row group.
type parquetFile struct {
	w      *parquet.GenericWriter[any]
	reader *Reading
	cbor   bool

	rows  int // of the row group
	bytes int
}

func newParquet(w io.Writer, r *Reading, o FileOptions) file {
	schema := parquet.SchemaOf(columns{})
	if o.CBOR {
		schema = parquet.SchemaOf(wideColumns{})
	}
	return &parquetFile{reader: r, cbor: o.CBOR, w: parquet.NewGenericWriter[any](w, schema,
		parquet.Compression(&zstd.Codec{Level: zstd.SpeedFastest}),
		parquet.DictionaryMaxBytes(dictionaryBytes), parquet.CreatedBy("cistern", "1", "0"))}
}

// add adds a row, whose texts are in p.text. If p.text grows, earlier rows keep the old one.
func (f *parquetFile) add(p *page, ev *store.Event) {
	did, rev, indexed := f.repository(p, ev)
	from := len(p.text)
	p.text = ev.CID.AppendText(p.text)
	cid := p.text[from:len(p.text):len(p.text)]
	collection, rkey := p.keep(ev.Collection), p.keep(ev.Rkey)
	created := timeValue(createdAt(ev.Record))
	record, why := absent(), absent()
	from = len(p.text)
	var err error
	if p.text, err = recordjson.Append(p.text, ev.Record); err == nil {
		record = present(parquet.ByteArrayValue(p.text[from:len(p.text):len(p.text)]))
	} else {
		why = present(parquet.ByteArrayValue([]byte(reason(err))))
	}
	c := &p.columns
	for i, v := range [...]parquet.Value{did, parquet.ByteArrayValue(collection),
		parquet.ByteArrayValue(rkey), parquet.ByteArrayValue(cid), rev, indexed, created, record, why} {
		c[i] = append(c[i], v)
	}
	if f.cbor {
		c[colCBOR] = append(c[colCBOR], parquet.ByteArrayValue(p.keep(ev.Record)))
	}
}

// repository returns the values that rows of one rev have in common. They are those of the row
// before if that is of the same rev.
func (f *parquetFile) repository(p *page, ev *store.Event) (did, rev, indexed parquet.Value) {
	c := &p.columns
	if n := p.rows; n > 0 && p.last.did == ev.DID && string(c[colRev][n-1].ByteArray()) == ev.Rev {
		return c[colDID][n-1], c[colRev][n-1], c[colIndexed][n-1]
	}
	return parquet.ByteArrayValue(p.keep([]byte(ev.DID))),
		parquet.ByteArrayValue(p.keep([]byte(ev.Rev))),
		timeValue(revTime(ev.Rev))
}

// keep copies a text into the page.
func (p *page) keep(s []byte) []byte {
	from := len(p.text)
	p.text = append(p.text, s...)
	return p.text[from:len(p.text):len(p.text)]
}

// Values of optional columns.
func present(v parquet.Value) parquet.Value { return v.Level(0, 1, 0) }

func absent() parquet.Value { return parquet.NullValue() }

func timeValue(micros int64, ok bool) parquet.Value {
	if !ok {
		return absent()
	}
	return present(parquet.Int64Value(micros))
}

// reason says why a record has no JSON form.
func reason(err error) string {
	var why *recordjson.Error
	if errors.As(err, &why) {
		return why.Reason()
	}
	return "not valid"
}

func (f *parquetFile) mark(*page, func() string) {}

func (f *parquetFile) write(p *page) error {
	for i, c := range f.w.ColumnWriters() {
		if _, err := c.WriteRowValues(p.columns[i]); err != nil {
			return err
		}
	}
	f.rows += p.rows
	f.bytes += len(p.text)
	if f.rows < groupRows && f.bytes < groupBytes {
		return nil
	}
	f.rows, f.bytes = 0, 0
	return f.w.Flush()
}

func (f *parquetFile) end(_ int64, token string) error {
	f.w.SetKeyValueMetadata(metaEpoch, f.reader.Epoch())
	f.w.SetKeyValueMetadata(metaHead, strconv.FormatUint(f.reader.Head(), 10))
	if token != "" {
		f.w.SetKeyValueMetadata(metaResume, token)
	}
	return f.w.Close()
}
