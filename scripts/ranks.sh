#!/bin/sh
# Converts with a real mpirun and torchrun, if they are there, and with the variables of srun, four processes each, and compares with what one process
# writes; then kills a rank, ever earlier, and runs it again alone. tests/it/durability/ranks.rs does the same, small.
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
for rank in 0 1 2 3; do
    apply env SLURM_PROCID=$rank SLURM_NTASKS=4 SLURM_STEP_NUM_TASKS=4 &
done
wait
same "srun's variables"
# One rank is killed ever earlier, and run again alone.
for delay in 0.4 0.2 0.1 0.05 0.02; do
    for rank in 0 1 3; do
        apply env RANK=$rank WORLD_SIZE=4
    done
    apply env RANK=2 WORLD_SIZE=4 &
    lost=$!
    sleep $delay
    pkill -9 -P $lost 2>/dev/null || true
    wait $lost 2>/dev/null || true
    if test -d "$work/out"; then
        found="was done before $delay s"
    else
        found="lost after $delay s, and run again"
        apply env RANK=2 WORLD_SIZE=4
    fi
    rm -rf "$work/.out.regraft-ranks"
    same "rank 2 $found"
done
