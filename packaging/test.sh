#!/usr/bin/env bash
# test.sh checks what release.sh made: a second build in another directory has the same bytes; dpkg
# installs, upgrades, removes and purges the package, in a directory of its own, and keeps the
# operator's options and data; systemd accepts the unit; the image runs (image.sh). It needs dpkg,
# fakeroot and systemd.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "test.sh: $*" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
arch=$(dpkg --print-architecture)
package=$(ls dist/cistern_*_"$arch".deb)

echo "building again in $work"
git clone -q . "$work/again"
(cd "$work/again" && ARCHS=$arch packaging/release.sh >/dev/null 2>&1)
for file in "$work/again/dist"/*_"$arch".*; do
  cmp "$file" "dist/$(basename "$file")" || fail "a second build differs"
done
(cd dist && sha256sum --quiet -c SHA256SUMS)

root=$work/root
mkdir -p "$root"/{var/lib/dpkg/{info,updates,triggers},etc,var/lib/cistern,var/log}
touch "$root/var/lib/dpkg/status" "$root/var/lib/dpkg/available"
echo data >"$root/var/lib/cistern/records"
package() {
  fakeroot dpkg --root="$root" --force-script-chrootless --force-depends --force-confold --log="$work/log" "$@" >"$work/out" 2>&1 ||
    { cat "$work/out" >&2; fail "dpkg $*"; }
}
state() { dpkg-query --root="$root" -W -f '${db:Status-Status} ${Version}' cistern 2>/dev/null || echo absent; }
options=$root/etc/cistern/cistern.env

echo "installing $package"
package --install "$package"
[[ $(state) == "installed "* ]] || fail "after the installation: $(state)"
"$root/usr/bin/cistern" version | grep -q '^cistern v' || fail "the binary does not know its version"
grep -q '^cistern:' "$root/etc/passwd" || fail "the user cistern was not made"
grep -q 'systemctl enable --now cistern' "$work/out" || fail "the package does not say how to go on: $(cat "$work/out")"

echo "checking the manual page and the completion of shells"
zcat "$root/usr/share/man/man1/cistern.1.gz" >"$work/cistern.1"
grep -qE '^\.TH CISTERN 1 "[0-9]{4}(\\-[0-9]{2}){2}" "cistern v[0-9]' "$work/cistern.1" ||
  fail "the manual page has no date and version: $(head -n 1 "$work/cistern.1")"
completes() { # completes SHELL COMMAND...: the command prints what the shell completes of "cistern stat"
  command -v "$1" >/dev/null || { [ "$1" != bash ] && echo "$1 is not installed: not checked" && return; }
  local got
  got=$(PATH=$root/usr/bin:$PATH "$@" 2>"$work/out") || fail "$1: $(cat "$work/out")"
  [[ $got == *status* && $got != *backup* ]] || fail "$1 completes 'cistern stat' with: $got"
}
completes bash --norc -c ". '$root/usr/share/bash-completion/completions/cistern'
  COMP_WORDS=(cistern stat) COMP_CWORD=1; __cistern_bash_autocomplete; echo \"\${COMPREPLY[@]}\""
completes fish --no-config -c ". '$root/usr/share/fish/vendor_completions.d/cistern.fish'; complete -C 'cistern stat'"
zsh=$root/usr/share/zsh/vendor-completions/_cistern
[ "$(head -n 1 "$zsh")" = "#compdef cistern" ] || fail "zsh would not load $zsh"
! command -v zsh >/dev/null || zsh -n "$zsh" || fail "zsh does not understand $zsh"

echo "checking the unit"
sed "s,^ExecStart=/,ExecStart=$root/," "$root/usr/lib/systemd/system/cistern.service" >"$work/cistern.service"
systemd-analyze --man=no verify "$work/cistern.service" 2>"$work/verify" || fail "the unit: $(cat "$work/verify")"
! grep cistern "$work/verify" >&2 || fail "systemd has objections to the unit"
exposure=$(systemd-analyze security --offline=true "$work/cistern.service" | awk '/Overall exposure/ { print $(NF - 2) }')
awk -v x="$exposure" 'BEGIN { exit !(x > 0 && x < 2) }' || fail "the exposure of the unit is $exposure, want less than 2"

echo "upgrading"
echo CISTERN_MODE=full >>"$options"
VERSION=999.0 ARCH=$arch go run github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.48.0 package \
  --config packaging/nfpm.yaml --packager deb --target "$work/next.deb" >/dev/null
package --install "$work/next.deb"
[[ $(state) == "installed 999.0" ]] || fail "after the upgrade: $(state)"
grep -q CISTERN_MODE=full "$options" || fail "the upgrade lost an option"

echo "removing and purging"
package --remove cistern
[ ! -e "$root/usr/bin/cistern" ] || fail "the binary is still there"
grep -q CISTERN_MODE=full "$options" || fail "the removal lost an option"
package --purge cistern
[ ! -e "$options" ] || fail "the purge left $options"
[ "$(cat "$root/var/lib/cistern/records")" = data ] || fail "the purge touched the store"
grep -q /var/lib/cistern "$work/out" || fail "the purge does not say where the store is"
echo "the package is as it should be (exposure of the unit: $exposure)"
packaging/image.sh
