//go:build realnet

package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
)

// startBucket starts s3rver with a bucket, and returns the variables that lead there.
func startBucket(t *testing.T, hosts *realHosts, bucket string) []string {
	t.Helper()
	address := freeAddress(t)
	host, port, _ := strings.Cut(address, ":")
	cmd := hosts.command(t, "node_modules/s3rver/bin/s3rver.js", "--directory", t.TempDir(), "--address", host, "--port", port,
		"--silent", "--configure-bucket", bucket)
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	eventually(t, startLimit, func() error {
		res, err := http.Get("http://" + address)
		if err == nil {
			err = res.Body.Close()
		}
		return err
	})
	return append(os.Environ(), "AWS_ACCESS_KEY_ID=S3RVER", "AWS_SECRET_ACCESS_KEY=S3RVER", "AWS_ENDPOINT_URL=http://"+address)
}

// TestRealnetBackup backs up a daemon that indexes real PDSes into a bucket of a published server of
// S3, kills it, loses its directory, and goes on with what the bucket has.
func TestRealnetBackup(t *testing.T) {
	hosts := startRealHosts(t)
	environ := startBucket(t, hosts, "backups")
	hosts.node(t, "seed.mjs", fmt.Sprint(realAccounts), fmt.Sprint(realRecords))
	seeded := hosts.truth(t)
	index := newRealIndex(t, hosts)
	index.follows = true
	run := func(args ...string) string {
		t.Helper()
		cmd := index.command(args...)
		cmd.Env, cmd.Stdout = append(environ, "CISTERN_ADMIN="+index.admin), nil
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("cistern %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	const to = "s3://backups/cistern"
	uploaded := func() (n int64) {
		t.Helper()
		var made struct{ Bytes, Uploaded int64 }
		must(t, json.Unmarshal([]byte(run("backup", to, "--json")), &made))
		if made.Uploaded == 0 || made.Uploaded > made.Bytes {
			t.Fatalf("%d of %d bytes were uploaded", made.Uploaded, made.Bytes)
		}
		return made.Uploaded
	}

	index.start(t)
	index.waitFor(t, map[string]int64{"repos": realAccounts, "synced": realAccounts, "records": seeded.count()})
	index.waitFollowing(t)
	first := uploaded()
	hosts.mutate(t, "create u000 1", "create u001 3", "delete u001 app.bsky.graph.follow", "deactivate u006")
	second := uploaded()
	if second >= first/2 {
		t.Errorf("the second backup uploaded %d bytes, the first %d", second, first)
	}
	if out := run("backup", "verify", to); !strings.Contains(out, "no difference") {
		t.Errorf("verify: %s", out)
	}
	hosts.mutate(t, "create u002 2") // is in no backup
	index.kill()
	index.cmd = nil
	must(t, os.RemoveAll(index.dir))

	run("restore", to, "--data", index.dir)
	index.check(t)
	index.start(t)
	changed := hosts.truth(t)
	index.waitTruth(t, changed)
	index.waitFor(t, map[string]int64{"synced": realAccounts - 1, "gone": 1, "buffered": 0})
	index.compareQueries(t, changed)
	index.stop(t)
	index.check(t)
}
