# Short names for what .ci/run does, one step each; `just` alone does everything.

all:
    .ci/run

# One step: format, lints, tests, docs, readme or library.
step name:
    .ci/run {{name}}

# Lays out code, and rule files as `regraft fmt` does.
fmt:
    cargo fmt --all
    cargo run -q -- fmt rules examples

# Runs the tests and accepts every snapshot as it is now: read the difference before committing it.
accept:
    INSTA_UPDATE=always cargo test --test it
    git diff --stat -- tests

# The two commands of README.md.
demo:
    cargo run -q -- apply examples/mixtral -o target/packed --force && cargo run -q -- inspect target/packed

# Rebuilds examples/mixtral from its case.
example:
    scripts/make_example.py tests/fixtures/cases/mixtral.json examples/mixtral

# Licences, advisories and doubled dependencies; needs cargo-deny.
deny:
    cargo deny check
