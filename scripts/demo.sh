#!/usr/bin/env bash
# The main job, end to end, on a copy of this checkout with its node_modules: `make demo`.
#
# Everything happens in one scratch folder with a store and a runtime folder of its own, so the user's store is not
# touched. Stops at the first step that fails or does not give what it must, and cleans up on every way out.

set -euo pipefail
export LC_ALL=C.UTF-8

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BENTO=${BENTO:-$ROOT/bin/bento}
FILES_MIN=10000
LINES_SHOWN=12

[ -x "$BENTO" ] || { echo "demo: $BENTO is missing: run make build first" >&2; exit 1; }
[ -d "$ROOT/node_modules" ] || { echo "demo: node_modules is missing: run make build first" >&2; exit 1; }

SCRATCH=$(cd "$(mktemp -d "${TMPDIR:-/tmp}/bento-demo.XXXXXX")" && pwd -P)
mkdir -m 700 "$SCRATCH"/{run,data,home,log}
OUTPUT=$SCRATCH/log/output

# What the person types runs in here; the demo's own tools run without it, so that only bento's processes carry it.
bento() {
  HOME=$SCRATCH/home XDG_RUNTIME_DIR=$SCRATCH/run XDG_DATA_HOME=$SCRATCH/data XDG_CONFIG_HOME=$SCRATCH/home/.config \
    XDG_CACHE_HOME=$SCRATCH/home/.cache NO_COLOR=1 "$BENTO" "$@"
}

# ---- what must not be left behind ------------------------------------------------------------------------------------

mounts_left() { # mount points in the scratch folder, deepest first
  awk -v root="$SCRATCH" 'index($2, root) == 1 { print $2 }' /proc/mounts | tac
}

processes_left() { # ids of processes that were started with the scratch runtime folder
  local environ pid
  for environ in /proc/[0-9]*/environ; do
    pid=${environ//[!0-9]/}
    if [ "$pid" != "$BASHPID" ] && grep -qzxF "XDG_RUNTIME_DIR=$SCRATCH/run" "$environ" 2>/dev/null; then echo "$pid"; fi
  done
}

sockets_left() { # sockets in the scratch folder that somebody still listens on
  awk -v root="$SCRATCH" 'index($NF, root) == 1 { print $NF }' /proc/net/unix
}

clean_up() {
  local status=$? target pid
  trap - EXIT INT TERM HUP
  cd /
  if [ -n "$(mounts_left)$(processes_left)" ]; then
    bento unmount --all --dir "$SCRATCH/ws" </dev/null >/dev/null 2>&1 || true
    for target in $(mounts_left); do
      umount -l "$target" 2>/dev/null || fusermount3 -u -z "$target" 2>/dev/null || true
    done
    for pid in $(processes_left); do kill -9 "$pid" 2>/dev/null || true; done
  fi
  if [ -n "$(mounts_left)" ]; then # never delete through a mount
    echo "demo: could not unmount $(mounts_left | tr '\n' ' '); $SCRATCH is left in place" >&2
    exit 1
  fi
  chmod -R u+rwX "$SCRATCH" 2>/dev/null || true
  rm -rf --one-file-system "$SCRATCH"
  exit "$status"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# ---- how a step looks ------------------------------------------------------------------------------------------------

say() { printf '\n\033[1m%s\033[0m\n' "$*" | if [ -t 1 ]; then cat; else sed 's/\x1b\[[0-9]*m//g'; fi; }

die() {
  printf '\ndemo failed: %s\n' "$*" >&2
  exit 1
}

now_us() { echo "${EPOCHREALTIME/[.,]/}"; }

show_output() { # file
  local lines
  sed -i "s|$SCRATCH|…|g" "$1"
  lines=$(wc -l <"$1")
  head -n "$LINES_SHOWN" "$1" | cut -c1-140 | sed 's/^/  /'
  if [ "$lines" -gt "$LINES_SHOWN" ]; then echo "  … $((lines - LINES_SHOWN)) more lines"; fi
}

step() { # a command line, as a person types it
  local started ended status=0
  printf '\n$ %s\n' "$1"
  started=$(now_us)
  eval "$1" >"$OUTPUT" 2>&1 </dev/null || status=$?
  ended=$(now_us)
  cp "$OUTPUT" "$OUTPUT.full"
  show_output "$OUTPUT"
  printf '  [%d ms]\n' $(((ended - started) / 1000))
  [ "$status" -eq 0 ] || die "\`$1\` exited with $status"
}

said() { # text that the last step must have printed
  grep -qF -- "$1" "$OUTPUT.full" || die "the output above does not mention: $1"
}

must() { # what must hold, then a command that shows that it does
  local claim=$1
  shift
  "$@" || die "not so: $claim"
  printf '  ✔ %s\n' "$claim"
}

count_files() { find "$1" -type f | wc -l; }

fingerprint() { # one line for each file and symlink, sorted: what it holds and its mode and time
  (
    cd "$1"
    find . -type f -print0 | sort -z | xargs -0 sha256sum
    find . -type l -printf '%p -> %l\n' | sort
    find . -type f -printf '%p %m %s %T@\n' | sort
  )
}

same() { cmp -s "$1" "$2"; }
lacks() { ! grep -qF -- "$1" "$2"; }
is_gone() { [ ! -e "$1" ]; }

# Everything in the mount is as in the source, and nothing is missing but bento's own two files and what it ignores.
same_as_source() {
  comm -13 <(sort "$SCRATCH/log/source") <(sort "$SCRATCH/log/look") >"$SCRATCH/log/different"
  comm -23 <(sort "$SCRATCH/log/source") <(sort "$SCRATCH/log/look") >"$SCRATCH/log/missing"
  if [ -s "$SCRATCH/log/different" ]; then
    head -n 5 "$SCRATCH/log/different"
    return 1
  fi
  if grep -E '(^|  )\./(node_modules|packages|cli|fs|index|store|extensions|test|package)' "$SCRATCH/log/missing" | head -n 5 | grep .; then
    return 1
  fi
}

# ---- the input -------------------------------------------------------------------------------------------------------

say "The input: a copy of this checkout with its node_modules"
mkdir "$SCRATCH/ws"
cd "$SCRATCH/ws"
# .git may be written to while we copy, and dist is not input; cp keeps modes, times and links
find "$ROOT" -mindepth 1 -maxdepth 1 ! -name .git ! -name 'dist*' ! -name coverage ! -name bento.yaml ! -name .bentoignore \
  -exec cp -a -t . {} +
files=$(count_files .)
echo "  $files files, $(du -sh . | cut -f1)"
copy=1
while [ "$files" -lt "$FILES_MIN" ]; do
  echo "  fewer than $FILES_MIN: node_modules once more, as another package of a monorepo: packages/part-$copy"
  mkdir -p "packages/part-$copy"
  cp -a package.json node_modules "packages/part-$copy/"
  files=$(count_files .)
  echo "  $files files, $(du -sh . | cut -f1)"
  copy=$((copy + 1))
done
fingerprint . >"$SCRATCH/log/source"

# ---- the job ---------------------------------------------------------------------------------------------------------

say "Track it, and save it twice"
step 'bento init'
must 'bento.yaml is there' test -f bento.yaml
step 'bento save -m "as cloned"'
said 'cp-1'
step 'bento save'
must 'nothing changed, so there is no second checkpoint' lacks 'cp-2' "$OUTPUT.full"

say "Look at the checkpoint without unpacking it"
mkdir ../look
step 'bento mount cp-1 ../look'
step 'ls ../look'
said 'package.json'
step 'find ../look -type f | wc -l'
step '(cd ../look && find . -type f -print0 | sort -z | xargs -0 sha256sum) > ../sums'
fingerprint ../look >"$SCRATCH/log/look"
must "contents, modes, times and links of all files are those of the source" same_as_source
must 'it is read-only' bash -c '! touch ../look/new 2>/dev/null'

say "Two forks, changed differently"
step 'bento fork cp-1 ../try-a ../try-b'
step 'ls ../try-a ../try-b'
said 'package.json'
step 'echo "export const answer = 42;" > ../try-a/answer.ts'
step 'sed -i "s/\"version\": .*/\"version\": \"9.9.9\",/" ../try-a/package.json'
step 'echo "A line of try-b." >> ../try-b/LICENSE'
step 'rm -r ../try-b/node_modules/yaml'
must 'neither fork sees the other, nor does the source' bash -c '
  [ ! -e ../try-b/answer.ts ] && [ ! -e answer.ts ] && [ ! -e ../look/answer.ts ] &&
  cmp -s package.json ../try-b/package.json && cmp -s LICENSE ../try-a/LICENSE && [ -d node_modules/yaml ] && [ -d ../try-a/node_modules/yaml ]'
step 'bento save --dir ../try-a -m "try a: an answer"'
said 'cp-2'
step 'bento save --dir ../try-b -m "try b: without yaml"'
said 'cp-3'

say "What is the difference?"
step 'bento diff cp-2 cp-3'
for name in answer.ts package.json LICENSE node_modules/yaml; do said "$name"; done
step 'bento diff ../try-a ../try-b'
for name in answer.ts package.json LICENSE node_modules/yaml; do said "$name"; done
step 'bento diff cp-1 cp-2'
said 'answer.ts'
must 'what only try-b changed is not in it' lacks 'LICENSE' "$OUTPUT.full"

say "Back to an older checkpoint, and forward again"
cp -a LICENSE "$SCRATCH/log/license.old"
step 'echo "A later thought." >> LICENSE'
cp -a LICENSE "$SCRATCH/log/license.new"
step 'bento save -m "a later thought"'
said 'cp-4'
step 'bento open cp-1'
must 'LICENSE is the old one' same LICENSE "$SCRATCH/log/license.old"
step 'bento open undo'
must 'LICENSE is the later one again' same LICENSE "$SCRATCH/log/license.new"
must 'no file was lost on the way' test "$(find . -type f ! -path ./bento.yaml ! -path ./.bentoignore | wc -l)" -eq "$files"

say "The history"
step 'bento list'
for text in cp-1 cp-2 cp-3 cp-4 'as cloned' 'try a: an answer' 'try b: without yaml' 'a later thought'; do said "$text"; done
step 'bento mounts'
said 'look'

say "Put everything away"
step 'bento unmount ../look'
step 'bento close ../try-a'
step 'bento close ../try-b'
step 'bento unmount --all'
for _ in $(seq 50); do # the daemon may take a moment to go
  [ -n "$(mounts_left)$(processes_left)$(sockets_left)" ] || break
  sleep 0.1
done
must 'nothing is mounted (/proc/mounts)' test -z "$(mounts_left)"
must 'no process of bento is running (/proc/*/environ)' test -z "$(processes_left)"
must 'no socket is open (/proc/net/unix)' test -z "$(sockets_left)"
cd /
rm -rf --one-file-system "$SCRATCH"
must 'the scratch folder is gone' is_gone "$SCRATCH"

say "demo passed: $files files in $SECONDS s"
