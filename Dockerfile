# docker build -t tollgate .
#
# The same Debian release builds and runs it, so that the C library fits.

FROM rust:1-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches keep crates and compiled dependencies between builds; what is shipped has to be copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked --bin tollgate \
    && install -D target/release/tollgate /out/tollgate \
    && install -d /out/state/data

# The C library, CA certificates and the user 65532; no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/tollgate /usr/local/bin/tollgate
# Relative paths in a configuration start here, and data/ is the one place that may be written.
COPY --from=build --chown=65532:65532 /out/state /var/lib/tollgate
COPY conf /etc/tollgate
WORKDIR /var/lib/tollgate
USER 65532:65532
EXPOSE 8080
# A graceful stop; give `docker stop --time` more than the grace period of 20 s.
STOPSIGNAL SIGTERM
# Asks the admin API on 127.0.0.1:9901, or where TOLLGATE_ADMIN says. With `admin.address: null`, and for commands other
# than `run` and `demo`, start the container with --no-healthcheck.
HEALTHCHECK --interval=10s --timeout=3s CMD ["/usr/local/bin/tollgate", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/tollgate"]
CMD ["run", "-c", "/etc/tollgate/tollgate.yaml"]
