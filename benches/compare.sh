#!/bin/sh
# Lanes that move nothing (in place, and blocks that filesystems share), and a safetensors + torch script where python has both. benches/marks.py measures
# what is copied and computed. Needs a release build; works in $DIR (default: $TMPDIR or /tmp), which should have 12 GiB free.
#
# usage: benches/compare.sh [MIB] [RUNS]
set -eu
cd "$(dirname "$0")/.."
mib=${1:-3072}
runs=${2:-3}
dir=$(mktemp -d "${DIR:-${TMPDIR:-/tmp}}/regraft-compare-XXXXXX")
trap 'rm -rf "$dir"' EXIT
regraft=$PWD/target/release/regraft
cargo build --release --quiet --bin regraft

echo "== $(uname -srm), $(nproc) cores, $(df --output=fstype "$dir" | tail -1), $(date +%F)"
# The median of some runs of a command, in milliseconds; $prepare runs before each.
median() {
    for _ in $(seq "$runs"); do
        eval "${prepare:-:}"
        from=$(date +%s%N)
        "$@" >/dev/null || test $? -eq 1
        to=$(date +%s%N)
        echo $(((to - from) / 1000000))
    done | sort -n | sed -n "$(((runs + 1) / 2))p"
}

echo "== in place"
mkdir "$dir/place"
printf 'rename "model.weight" <-> "w"\n' >"$dir/short.graft"
printf 'rename "model.weight" <-> "%s"\n' "$(head -c 9000 /dev/zero | tr '\0' x)" >"$dir/long.graft"
sparse() {
    rm -f "$dir"/place/* "$dir"/place/.r*
    header=$(printf '{"model.weight":{"dtype":"U8","shape":[%s],"data_offsets":[0,%s]}}' "$1" "$1")
    header=$(printf "%-$(((${#header} + 7) / 8 * 8))s" "$header") # data begins at a multiple of eight, as every writer has it
    printf '%b' "\\0$(printf %03o ${#header})\\0000\\0000\\0000\\0000\\0000\\0000\\0000" >"$dir/place/m.safetensors"
    printf '%s' "$header" >>"$dir/place/m.safetensors"
    truncate -s +"$1" "$dir/place/m.safetensors"
    sync "$dir/place/m.safetensors"
}
for size in 1073741824 1099511627776; do
    for rules in short long; do
        prepare="sparse $size"
        echo "$((size >> 30)) GiB, $rules name: $(median "$regraft" apply "$dir/place" --rules "$dir/$rules.graft" --in-place --quiet) ms"
    done
done
prepare=

# Filesystems that share blocks, each in a file of its own.
if [ "$(id -u)" = 0 ]; then
    for kind in xfs btrfs; do
        command -v mkfs.$kind >/dev/null || continue
        truncate -s 24G "$dir/$kind.img"
        mkfs.$kind -q "$dir/$kind.img" 2>/dev/null || continue
        mkdir "$dir/$kind"
        mount -o loop "$dir/$kind.img" "$dir/$kind" || continue
        shared=$((8 * 1073741824))
        mkdir "$dir/$kind/source"
        header=$(printf '{"model.weight":{"dtype":"U8","shape":[%s],"data_offsets":[0,%s]}}' "$shared" "$shared")
        header=$(printf "%-$(((${#header} + 7) / 8 * 8))s" "$header") # data begins at a multiple of eight, as every writer has it
        printf '%b' "\\0$(printf %03o ${#header})\\0000\\0000\\0000\\0000\\0000\\0000\\0000" >"$dir/$kind/source/m.safetensors"
        printf '%s' "$header" >>"$dir/$kind/source/m.safetensors"
        if [ "${FULL:-}" ]; then
            head -c "$shared" /dev/urandom >>"$dir/$kind/source/m.safetensors"
        else
            fallocate -l "$((shared + 8 + ${#header}))" "$dir/$kind/source/m.safetensors"
        fi
        sync
        prepare="rm -rf $dir/$kind/out; sync"
        echo "== $kind, 8 GiB: $(median "$regraft" apply "$dir/$kind/source" --rules "$dir/short.graft" -o "$dir/$kind/out" --quiet) ms"
        rm -rf "$dir/$kind/out"
        "$regraft" apply "$dir/$kind/source" --rules "$dir/short.graft" -o "$dir/$kind/out" | tail -1
        prepare=
        umount "$dir/$kind"
        rm -f "$dir/$kind.img"
    done
fi

if python3 -c 'import torch, safetensors' 2>/dev/null; then
    echo "== a safetensors + torch script"
    echo "pack: $(median python3 benches/pack_torch.py "$dir" "$mib") ms"
else
    echo "== no torch here: the script that packs by torch was not run"
fi
