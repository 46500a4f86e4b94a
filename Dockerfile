# The images of imsbox: a target for each role (hss, icscf, scscf, pcscf), for all of them in one (box), and for the
# operator's command line with the simulated handset (tools):
#
#   docker build --target box -t imsbox .
#
# Nothing in the final stages is run, so that any base will do that has the C library of the build: debian:bookworm-slim,
# or gcr.io/distroless/cc-debian12, which has no shell.
ARG RUST_IMAGE=rust:1-slim-bookworm
ARG RUNTIME_BASE=debian:bookworm-slim

# The programs are built from source, unless a folder `prebuilt` has them.
FROM ${RUST_IMAGE} AS programs
WORKDIR /src
COPY . .
RUN set -eu; \
    if [ -d prebuilt ]; then built=prebuilt; else \
        { command -v setcap && command -v make; } >/dev/null || { apt-get update -qq; apt-get install -y -qq --no-install-recommends libcap2-bin make; }; \
        cargo build --release --locked --bin hss --bin icscf --bin scscf --bin pcscf --bin imsbox --bin ue; \
        strip target/release/hss target/release/icscf target/release/scscf target/release/pcscf target/release/imsbox target/release/ue; \
        built=target/release; \
    fi; \
    mkdir -p /images/hss /images/icscf /images/scscf /images/pcscf /images/box /images/tools /images/data/imsbox; \
    for role in hss icscf scscf pcscf; do cp $built/$role /images/$role/; done; \
    cp $built/imsbox /images/box/; \
    cp $built/imsbox $built/ue /images/tools/; \
    # IPsec state is all that needs more than a user has. A program with this capability starts only where the container
    # has it too (cap_add: NET_ADMIN).
    setcap cap_net_admin+ep /images/pcscf/pcscf; \
    setcap cap_net_admin+ep /images/box/imsbox; \
    chmod 700 /images/data/imsbox

FROM ${RUNTIME_BASE} AS runtime
LABEL org.opencontainers.image.title="imsbox" org.opencontainers.image.licenses="MIT OR Apache-2.0"
# A volume that is mounted here for the first time belongs to the same user.
COPY --from=programs --chown=10001:10001 /images/data/ /var/lib/
ENV IMSBOX_DATA_DIR=/var/lib/imsbox
USER 10001:10001
STOPSIGNAL SIGTERM

FROM runtime AS hss
COPY --from=programs /images/hss/ /usr/local/bin/
ENV IMSBOX_CONFIG=/etc/imsbox/hss.toml
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/usr/local/bin/hss", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/hss"]

FROM runtime AS icscf
COPY --from=programs /images/icscf/ /usr/local/bin/
ENV IMSBOX_CONFIG=/etc/imsbox/icscf.toml
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/usr/local/bin/icscf", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/icscf"]

FROM runtime AS scscf
COPY --from=programs /images/scscf/ /usr/local/bin/
ENV IMSBOX_CONFIG=/etc/imsbox/scscf.toml
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/usr/local/bin/scscf", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/scscf"]

FROM runtime AS pcscf
COPY --from=programs /images/pcscf/ /usr/local/bin/
ENV IMSBOX_CONFIG=/etc/imsbox/pcscf.toml
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/usr/local/bin/pcscf", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/pcscf"]

FROM runtime AS tools
COPY --from=programs /images/tools/ /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/imsbox"]

# The last: what `docker build .` makes.
FROM runtime AS box
COPY --from=programs /images/box/ /usr/local/bin/
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/usr/local/bin/imsbox", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/imsbox"]
CMD ["up"]
