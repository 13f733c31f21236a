package store_test

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"testing"

	"cistern/store"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// randomize sets fields, and the elements of what they hold, to values near the edges of CBOR's
// heads, and leaves some as they are.
func randomize(rng *rand.Rand, v reflect.Value) {
	if rng.IntN(4) == 0 {
		return
	}
	n := near(rng, 64)
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && f.Name != "DID" || v.Type() == reflect.TypeFor[store.Entry]() {
				randomize(rng, v.Field(i))
			}
		}
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(n & (1<<v.Type().Bits() - 1))
		if rng.IntN(2) == 0 {
			v.SetUint([]uint64{1, 23, 24, 255, 256, 65535, 65536, 1<<32 - 1, 1 << 32}[rng.IntN(9)] & (1<<v.Type().Bits() - 1))
		}
	case reflect.Int64:
		v.SetInt(int64(n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString(randomText(rng, "aé\xff\x00", 0, 40))
	case reflect.Array:
		reflect.Copy(v, reflect.ValueOf([]byte(randomText(rng, "a\xff\x00", 32, 32))))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), rng.IntN(30), 30))
		for i := range v.Len() {
			randomize(rng, v.Index(i))
		}
	}
}

// TestByHand: what is written by hand is what the encoder writes, byte for byte, and what is read
// by hand is what the decoder reads.
func TestByHand(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	encode, decode := codec(t)
	same := cmp.Options{cmpopts.IgnoreUnexported(store.Repo{}, store.EntryOp{}), cmpopts.EquateEmpty()}
	for range 20_000 {
		var r store.Repo
		randomize(rng, reflect.ValueOf(&r).Elem())
		want, err := encode(r)
		if got := store.AppendRepo(nil, &r); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%+v is written as\n%x, the encoder gives\n%x, %v", r, got, want, err)
		}
		var read, decoded store.Repo
		if err := decode(want, &decoded); err != nil {
			continue // a negative number of the smallest kind
		}
		if !store.DecodeByHand(want, &read) || !cmp.Equal(read, decoded, same) {
			t.Fatalf("%x is read as\n%+v, the decoder gives\n%+v", want, read, decoded)
		}
	}
	for range 20_000 {
		var e store.Entry
		randomize(rng, reflect.ValueOf(&e).Elem())
		e.Time &= 1<<62 - 1
		e.DID = append(e.DID, 1)
		for i := range e.Ops {
			e.Ops[i].Path = append(e.Ops[i].Path, 'a')
		}
		want, err := encode(e)
		if got := store.AppendEntry(nil, &e); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%+v is written as\n%x, the encoder gives\n%x, %v", e, got, want, err)
		}
		var read, decoded store.Entry
		if err := decode(want, &decoded); err != nil {
			t.Fatal(err)
		}
		if !store.DecodeByHand(want, &read) || !cmp.Equal(read, decoded, same) {
			t.Fatalf("%x is read as\n%+v, the decoder gives\n%+v", want, read, decoded)
		}
	}
}

// FuzzByHand: whatever is read by hand, the decoder reads alike.
func FuzzByHand(f *testing.F) {
	encode, decode := codec(f)
	full := fullRepo()
	f.Add(store.AppendRepo(nil, &full))
	for _, e := range entries() {
		f.Add(store.AppendEntry(nil, &e))
	}
	if b, err := encode(store.Repo{}); err == nil {
		f.Add(b)
	}
	same := cmp.Options{cmpopts.IgnoreUnexported(store.Repo{}, store.EntryOp{}), cmpopts.EquateEmpty()}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, decodedRepo store.Repo
		if store.DecodeByHand(b, &r) {
			if err := decode(b, &decodedRepo); err != nil || !cmp.Equal(r, decodedRepo, same) {
				t.Errorf("%x is read as %+v, the decoder gives %+v, %v", b, r, decodedRepo, err)
			}
		}
		var e, decodedEntry store.Entry
		if store.DecodeByHand(b, &e) {
			if err := decode(b, &decodedEntry); err != nil || !cmp.Equal(e, decodedEntry, same) {
				t.Errorf("%x is read as %+v, the decoder gives %+v, %v", b, e, decodedEntry, err)
			}
		}
	})
}
