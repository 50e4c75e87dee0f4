# The command line alone: `docker build -t regraft .`, then
# `docker run --rm -v "$PWD:/work" regraft plan mixtral-8x7b/`.
FROM rust:1-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --locked --release --bin regraft

# It links the C library and nothing else; certificates are for checkpoints that are elsewhere.
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/regraft /usr/local/bin/regraft
WORKDIR /work
ENTRYPOINT ["regraft"]
