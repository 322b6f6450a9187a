# docker build -t tollgate .
#
# The build is optimised by a profile (docs/performance.md), for which everything is built twice; --build-arg PGO=off does
# without. Where a tool for it cannot be had, the build says so and is a plain one.
#
# Both images are of the same Debian release, so that the C library fits. From a registry of your own:
#   docker build -t tollgate --build-arg RUST_IMAGE=… --build-arg RUNTIME_IMAGE=… .
ARG RUST_IMAGE=rust:1-bookworm
# The C library, CA certificates and the user 65532; no shell, no package manager.
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${RUST_IMAGE} AS build
ARG PGO=on
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake \
    && if [ "$PGO" = on ]; then \
        llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p'); \
        { apt-get install -y --no-install-recommends nghttp2-client openssl util-linux \
            && { rustup component add llvm-tools || apt-get install -y --no-install-recommends "llvm-$llvm"; }; } \
            || echo "not everything for PGO could be installed"; \
    fi \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches keep crates and compiled dependencies between builds; what is shipped has to be copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    status=3; \
    if [ "$PGO" = on ]; then sh packaging/pgo.sh --no-compare && status=0 || status=$?; fi; \
    case $status in \
        0) binary=target/pgo/tollgate ;; \
        3) cargo build --release --locked --bin tollgate && binary=target/release/tollgate ;; \
        *) exit "$status" ;; \
    esac \
    && install -D "$binary" /out/tollgate \
    && install -d /out/state/data

FROM ${RUNTIME_IMAGE}
LABEL org.opencontainers.image.title="tollgate" \
      org.opencontainers.image.description="HTTP edge proxy with a token bucket for every client" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/tollgate /usr/local/bin/tollgate
COPY conf /etc/tollgate
# Relative paths in a configuration start here, and data/ is the one place that has to be writable: mount a volume there and
# run with a read-only root. The volume takes over its owner.
COPY --from=build --chown=65532:65532 /out/state /var/lib/tollgate
WORKDIR /var/lib/tollgate
USER 65532:65532
EXPOSE 8080
# A graceful stop; give `docker stop --time` more than the grace period of 20 s.
STOPSIGNAL SIGTERM
# Asks the admin API on 127.0.0.1:9901, or where TOLLGATE_ADMIN says. With `admin.address: null`, and for commands other
# than `run` and `demo`, start the container with --no-healthcheck.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/usr/local/bin/tollgate", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/tollgate"]
CMD ["run", "-c", "/etc/tollgate/tollgate.yaml"]
