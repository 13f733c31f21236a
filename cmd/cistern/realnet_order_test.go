//go:build realnet

package main_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"

	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"
)

// checkOrders checks that the CARs of accounts are in the order that `goat repo check-order` wants, and
// returns how many blocks they have.
func (x *realIndex) checkOrders(t *testing.T, dids []string) (blocks int) {
	t.Helper()
	for _, did := range dids {
		res, err := http.Get(x.xrpc("com.atproto.sync.getRepo") + "?" + url.Values{"did": {did}}.Encode())
		must(t, err)
		car, err := io.ReadAll(res.Body)
		must(t, err)
		must(t, res.Body.Close())
		n, err := checkOrder(car)
		if err != nil {
			t.Errorf("the CAR of %s is not in streamable order: %v", did, err)
		}
		blocks += n
	}
	return blocks
}

// section is a block of a CAR.
type section struct {
	id   cid.Cid
	data []byte
}

// sectionsOf returns the blocks of a CAR in their order.
func sectionsOf(car []byte) (all []section, err error) {
	for first := true; len(car) > 0; first = false {
		n, k := binary.Uvarint(car)
		if k <= 0 || n > uint64(len(car)-k) {
			return nil, fmt.Errorf("a section of %d bytes, of which %d are left", n, len(car))
		}
		body := car[k : k+int(n)]
		if car = car[k+int(n):]; first {
			continue // the header
		}
		size, id, err := cid.CidFromBytes(body)
		if err != nil {
			return nil, err
		}
		all = append(all, section{id, body[size:]})
	}
	return all, nil
}

// checkOrder reads a CAR as a reader of a stream does: it knows at each block which one must be next,
// the commit, then the tree in pre-order with each record where its entry stands. It reads commits and
// nodes with indigo.
func checkOrder(car []byte) (blocks int, err error) {
	all, err := sectionsOf(car)
	if err != nil || len(all) == 0 {
		return 0, fmt.Errorf("%d blocks: %w", len(all), err)
	}
	var commit repo.Commit
	if err := commit.UnmarshalCBOR(bytes.NewReader(all[0].data)); err != nil {
		return 0, err
	}
	type wanted struct {
		id     cid.Cid
		record bool
	}
	stack := []wanted{{id: commit.Data}} // the next one last
	for i, b := range all[1:] {
		if len(stack) == 0 {
			return i, fmt.Errorf("block %d follows the end of the tree", i+1)
		}
		is := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if !b.id.Equals(is.id) {
			return i, fmt.Errorf("block %d is %s, want %s", i+1, b.id, is.id)
		}
		if is.record {
			continue
		}
		node, err := mst.NodeDataFromCBOR(bytes.NewReader(b.data))
		if err != nil {
			return i, err
		}
		for j := len(node.Entries) - 1; j >= 0; j-- {
			e := node.Entries[j]
			if e.Right != nil {
				stack = append(stack, wanted{id: *e.Right})
			}
			stack = append(stack, wanted{e.Value, true})
		}
		if node.Left != nil {
			stack = append(stack, wanted{id: *node.Left})
		}
	}
	if len(stack) > 0 {
		return len(all), fmt.Errorf("the CAR ends before %d blocks", len(stack))
	}
	return len(all), nil
}
