#!/bin/sh
# Kills apply and apply --in-place at 200 random moments each, over several layouts; see tests/it/durability.
set -eu
cd "$(dirname "$0")/.."
REGRAFT_KILLS="${1:-200}" cargo test --release --test it durability::kills -- --nocapture
