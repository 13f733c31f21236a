#!/usr/bin/env bash
# release.sh makes dist anew: for linux on amd64 and arm64 a static binary, an archive, a Debian
# package and a bill of materials, with checksums of all. The same commit and Go release give the same
# bytes on any machine.
#
# Environment: VERSION (default: that of the tag, or of the commit), ARCHS (default: amd64 arm64).
set -euo pipefail
cd "$(dirname "$0")/.."

NFPM=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.48.0
CYCLONEDX=github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0

if [ -n "$(git status --porcelain)" ]; then
  echo "release.sh: the tree has changes that are not committed:" >&2
  git status --short >&2
  exit 1
fi
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
tag=$(git describe --tags --exact-match --match 'v*' 2>/dev/null || true)
if [ -z "${VERSION:-}" ]; then
  VERSION=0.0.0~$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S).$(git rev-parse --short=12 HEAD)
  [ -z "$tag" ] || VERSION=${tag#v}
fi
export SOURCE_DATE_EPOCH VERSION ARCH

rm -rf dist
mkdir -p dist/source dist/image/data
# The manual page, with the version and the date of the commit, and the scripts of shells are the same
# for every platform.
CGO_ENABLED=0 go build -trimpath -buildvcs=true -o dist/cistern ./cmd/cistern
dist/cistern man | gzip -9n >dist/cistern.1.gz
for shell in bash zsh fish; do
  dist/cistern completion "$shell" >"dist/completion.$shell"
done
rm dist/cistern
touch -d "@$SOURCE_DATE_EPOCH" dist/cistern.1.gz dist/completion.*
# The files that go with the binary have the time of the commit.
git -c tar.umask=022 archive HEAD LICENSE README.md CHANGELOG.md BENCHMARKS.md docs packaging | tar -x -C dist/source
for ARCH in ${ARCHS:-amd64 arm64}; do
  echo "building $VERSION for linux on $ARCH"
  name=cistern_${VERSION}_linux_$ARCH
  CGO_ENABLED=0 GOOS=linux GOARCH=$ARCH go build -trimpath -buildvcs=true -ldflags '-s -w' \
    -o "dist/linux_$ARCH/cistern" ./cmd/cistern
  touch -d "@$SOURCE_DATE_EPOCH" "dist/linux_$ARCH/cistern"
  tar --sort=name --owner=0 --group=0 --numeric-owner --transform "s,^,$name/," -cf - \
    -C "dist/linux_$ARCH" cistern -C ../source LICENSE README.md CHANGELOG.md BENCHMARKS.md docs packaging |
    gzip -9n >"dist/$name.tar.gz"
  go run "$NFPM" package --config packaging/nfpm.yaml --packager deb --target "dist/cistern_${VERSION}_$ARCH.deb"
  go run "$CYCLONEDX" bin -json -noserial -output "dist/$name.cdx.json" "dist/linux_$ARCH/cistern"
  sed -i "s/\"timestamp\": \".*\"/\"timestamp\": \"$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)\"/" "dist/$name.cdx.json"
done
(cd dist && sha256sum -- *.tar.gz *.deb *.json >SHA256SUMS && ls -l ./*.*)
