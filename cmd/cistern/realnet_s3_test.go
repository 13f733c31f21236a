//go:build realnet

package main_test

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// startBucket starts s3rver with a bucket, and returns its directory and the variables that lead
// there.
func startBucket(t *testing.T, hosts *realHosts, bucket string) (dir string, environ []string) {
	t.Helper()
	address, dir := freeAddress(t), t.TempDir()
	host, port, _ := strings.Cut(address, ":")
	cmd := hosts.command(t, "node_modules/s3rver/bin/s3rver.js", "--directory", dir, "--address", host, "--port", port,
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
	return dir, append(os.Environ(), "AWS_ACCESS_KEY_ID=S3RVER", "AWS_SECRET_ACCESS_KEY=S3RVER", "AWS_ENDPOINT_URL=http://"+address)
}

// bytesIn returns the size of all files below a directory.
func bytesIn(t *testing.T, dir string) (n int64) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		i, err := e.Info()
		if err == nil {
			n += i.Size()
		}
		return err
	}))
	return n
}

// TestRealnetBackup backs up a daemon that indexes real PDSes into a bucket of a published server of
// S3, kills it, loses its directory, and goes on with what the bucket has.
func TestRealnetBackup(t *testing.T) {
	hosts := startRealHosts(t)
	dir, environ := startBucket(t, hosts, "backups")
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
		before := bytesIn(t, dir)
		run("backup", to)
		return bytesIn(t, dir) - before
	}

	index.start(t)
	index.waitFor(t, map[string]int64{"repos": realAccounts, "synced": realAccounts, "records": seeded.count()})
	index.waitFollowing(t)
	run("maintain", "run", "compact") // else all of it is in the write-ahead log
	first := uploaded()
	hosts.mutate(t, "create u000 1", "create u001 3", "delete u001 app.bsky.graph.follow", "deactivate u006")
	second := uploaded()
	if first == 0 || second <= 0 || second >= first/2 {
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
