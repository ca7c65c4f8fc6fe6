# Two stages on the same Debian: build, then a slim image that runs as nobody.
#   docker build -t refrain .
#   docker run -v refrain:/data -p 7700:7700 refrain

FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked && cp target/dist/refrain /usr/local/bin/refrain

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --home-dir /data refrain && install -d -o refrain /data
COPY --from=build /usr/local/bin/refrain /usr/local/bin/refrain
USER refrain
WORKDIR /data
VOLUME /data
EXPOSE 7700 7701
# Inside a container the address must be reachable from outside; put a mesh or a proxy with TLS before it.
ENV REFRAIN_STORE=/data/store
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["refrain", "health"]
ENTRYPOINT ["refrain"]
CMD ["serve", "--listen", "0.0.0.0:7700", "--admin-listen", "0.0.0.0:7701", "--profiles", "/data/profiles.redb"]
