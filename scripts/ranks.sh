#!/bin/sh
# Converts with a real mpirun (and torchrun, if it is there), four processes, and compares with what one process writes; then kills a rank and reruns it.
# usage: scripts/ranks.sh SOURCE RULES
set -eu
source=$1
rules=$2
regraft="${REGRAFT:-$(dirname "$0")/../target/release/regraft}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
apply() { "$@" "$regraft" apply "$source" --rules "$rules" -o "$work/out" --max-shard-size "${SHARD:-64MiB}" --quiet; }
same() {
    diff -r "$work/one" "$work/out"
    rm -rf "$work/out"
    test -z "$(ls -A "$work" | grep -v '^one$' || true)"
    echo "$1: same bytes"
}
apply env
mv "$work/out" "$work/one"
if command -v mpirun >/dev/null; then
    apply mpirun --allow-run-as-root --oversubscribe -n 4
    same "mpirun -n 4"
fi
if command -v torchrun >/dev/null; then
    apply torchrun --no-python --nproc-per-node 4
    same "torchrun"
fi
for rank in 0 1 3; do
    apply env RANK=$rank WORLD_SIZE=4
done
apply env RANK=2 WORLD_SIZE=4 &
lost=$!
sleep 0.05
kill -9 $lost 2>/dev/null || true
wait $lost || true
test -d "$work/out" || apply env RANK=2 WORLD_SIZE=4
same "a rank killed and run again"
