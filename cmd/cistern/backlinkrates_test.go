package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"

	"cistern/store/storetest"
)

const followCollection = "app.bsky.graph.follow"

// backlinkRates times queries for what follows an account.
type backlinkRates struct {
	*queryRates
	follows  []followRecord
	followed map[string]*followed // by account
}

// followRecord is a record that follows an account.
type followRecord struct{ did, subject string }

// followed is how many records follow an account, of how many accounts.
type followed struct {
	records int
	dids    map[string]bool
}

// TestBacklinkRates measures how many queries for backlinks a second the daemon answers. Each answer
// is compared with what its records say. The size is as in TestQueryRates:
//
//	CISTERNTEST_QUERIES=10 go test -count 1 -v -timeout 20m -run TestBacklinkRates ./cmd/cistern
func TestBacklinkRates(t *testing.T) {
	storetest.WithoutRace(t)
	q := &backlinkRates{queryRates: newQueryRates(t, "--backlinks"), followed: map[string]*followed{}}
	for i := range q.truth {
		q.gather(q.truth[i].DID)
	}
	q.index.await(t, "the backlinks index", q.complete)
	t.Logf("%d records follow %d accounts", len(q.follows), len(q.followed))
	for _, kind := range []struct {
		name        string
		connections int
		next        func(*rand.Rand) ask
	}{
		{"getBacklinksCount", 1, q.getBacklinksCount},
		{"getBacklinksCount", 64, q.getBacklinksCount},
		{"getBacklinks of 100", 1, q.getBacklinks},
		{"getBacklinks of 100", 16, q.getBacklinks},
		{"getBacklinkDids of 100", 16, q.getBacklinkDIDs},
		{"getManyToMany of 100", 16, q.getManyToMany},
		{"getManyToManyCounts", 16, q.getManyToManyCounts},
	} {
		q.measure(kind.name, kind.connections, kind.next)
	}
}

// complete returns an error unless the index counts every record.
func (q *backlinkRates) complete() error {
	c := q.call("127.0.0.1")
	defer c.conn.Close()
	for subject, f := range q.followed {
		if _, err := c.ask(q.countOf(subject, f)); err != nil {
			return err
		}
	}
	return nil
}

// gather reads the records of an account that follow others.
func (q *backlinkRates) gather(did string) {
	q.t.Helper()
	for cursor := ""; ; {
		res, err := http.Get(fmt.Sprintf("http://%s/xrpc/com.atproto.repo.listRecords?repo=%s&collection=%s&limit=100&cursor=%s",
			q.index.public, did, followCollection, cursor))
		if err != nil {
			q.t.Fatal(err)
		}
		var page struct {
			Cursor  string
			Records []struct{ Value struct{ Subject string } }
		}
		err = errors.Join(json.NewDecoder(res.Body).Decode(&page), res.Body.Close())
		if err != nil || res.StatusCode != http.StatusOK {
			q.t.Fatalf("records of %s: %d, %v", did, res.StatusCode, err)
		}
		for _, r := range page.Records {
			subject := r.Value.Subject
			q.follows = append(q.follows, followRecord{did, subject})
			if q.followed[subject] == nil {
				q.followed[subject] = &followed{dids: map[string]bool{}}
			}
			q.followed[subject].records++
			q.followed[subject].dids[did] = true
		}
		if cursor = page.Cursor; cursor == "" {
			return
		}
	}
}

// about returns a query about an account, one that is followed more the more often. rest is further
// parameters.
func (q *backlinkRates) about(rng *rand.Rand, method, rest string) (string, *followed) {
	subject := q.follows[rng.IntN(len(q.follows))].subject
	return pathAbout(subject, method, rest), q.followed[subject]
}

func pathAbout(subject, method, rest string) string {
	return fmt.Sprintf("blue.microcosm.links.%s?subject=%s&source=%s:subject%s", method, subject, followCollection, rest)
}

func (q *backlinkRates) countOf(subject string, f *followed) ask {
	return ask{pathAbout(subject, "getBacklinksCount", ""), fmt.Sprintf(`{"total":%d}`, f.records)}
}

func (q *backlinkRates) getBacklinksCount(rng *rand.Rand) ask {
	subject := q.follows[rng.IntN(len(q.follows))].subject
	return q.countOf(subject, q.followed[subject])
}

func (q *backlinkRates) getBacklinks(rng *rand.Rand) ask {
	path, f := q.about(rng, "getBacklinks", "&limit=100")
	return ask{path, fmt.Sprintf(`{"total":%d,"records":[{"did":`, f.records)}
}

func (q *backlinkRates) getBacklinkDIDs(rng *rand.Rand) ask {
	path, f := q.about(rng, "getBacklinkDids", "&limit=100")
	return ask{path, fmt.Sprintf(`{"total":%d,"linking_dids":["did:`, len(f.dids))}
}

func (q *backlinkRates) getManyToMany(rng *rand.Rand) ask {
	path, _ := q.about(rng, "getManyToMany", "&limit=100&pathToOther=subject")
	return ask{path, `{"items":[{"linkRecord":{"did":`}
}

func (q *backlinkRates) getManyToManyCounts(rng *rand.Rand) ask {
	path, f := q.about(rng, "getManyToManyCounts", "&pathToOther=subject")
	return ask{path, fmt.Sprintf(`"total":%d,"distinct":%d}`, f.records, len(f.dids))}
}
