#!/usr/bin/env bash
# image.sh builds the image of dist without a network and runs it: it answers as a user who is not
# root and owns the volume, its health check follows the daemon, and SIGTERM ends it cleanly. Without
# Podman, or where Podman cannot run a container, it says so and checks nothing more.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() { echo "image.sh: the image is not tested: $*"; exit 0; }
command -v podman >/dev/null || skip "podman is not installed"
unshare --mount --net true 2>/dev/null || skip "it needs root, and namespaces"
if [ "${1:-}" != inside ]; then
  # In a mount namespace: crun refuses a machine with both versions of control groups.
  exec unshare --mount packaging/image.sh inside
fi
umount /sys/fs/cgroup/unified 2>/dev/null || true

work=$(mktemp -d)
podman=(podman --root "$work/root" --runroot "$work/run" --storage-driver vfs --cgroup-manager cgroupfs --events-backend file --log-level fatal)
trap '"${podman[@]}" rm --force --all >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
fail() { echo "image.sh: $*" >&2; "${podman[@]}" logs cistern >&2 || true; exit 1; }
limits=(--cgroups disabled --network none --ulimit nofile=1024:1024 --ulimit nproc=1000:1000)

echo "building the image without a network"
unshare --net "${podman[@]}" build --quiet --isolation chroot --format docker \
  --build-arg "TARGETARCH=$(dpkg --print-architecture)" -f packaging/Containerfile -t cistern dist >"$work/out" 2>&1 ||
  { cat "$work/out" >&2; exit 1; }

"${podman[@]}" run "${limits[@]}" --rm cistern version >"$work/out" 2>&1 ||
  skip "Podman cannot run a container here: $(tail -n 1 "$work/out")"
grep -q '^cistern v' "$work/out" || fail "the binary does not know its version: $(cat "$work/out")"
"${podman[@]}" run "${limits[@]}" --rm cistern demo --exit --repos 5 --hosts 1 >"$work/out" 2>&1 || fail "demo: $(tail -n 3 "$work/out")"

"${podman[@]}" run "${limits[@]}" --detach --name cistern --volume cistern:/data cistern >/dev/null
healthy() { "${podman[@]}" healthcheck run cistern >/dev/null 2>&1; }
for ((i = 0; i < 60; i++)); do ! healthy || break; sleep 1; done
healthy || fail "it is not healthy after a minute"
pid=$("${podman[@]}" inspect cistern --format '{{.State.Pid}}')
[ "$(stat -c %u "/proc/$pid")" = 65532 ] || fail "it runs as user $(stat -c %u "/proc/$pid")"
volume=$("${podman[@]}" volume inspect cistern --format '{{.Mountpoint}}')
[ "$(stat -c %u "$volume")" = 65532 ] || fail "user $(stat -c %u "$volume") owns the volume"
kill -STOP "$pid"
! healthy || fail "it is healthy, and the daemon does not answer"
kill -CONT "$pid"
"${podman[@]}" stop --time 60 cistern >/dev/null
[ "$("${podman[@]}" inspect cistern --format '{{.State.ExitCode}}')" = 0 ] || fail "SIGTERM does not end it cleanly"
echo "the image is as it should be"
