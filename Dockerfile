# An image with one static binary in it, for amd64, arm64, arm/v7 and arm/v6.
#
#   docker build .                                      builds the binary first, in a container
#   boards/image.sh                                     takes those that boards/build.sh made
FROM --platform=$BUILDPLATFORM docker.io/library/rust:1.97.1-bookworm@sha256:593db038d36ea0d2e5b22a2e095eb95dbec607d88d658c2f35f65ee880b4f93a AS binary
ARG TARGETARCH TARGETVARIANT
# What --version says; Cargo.toml's version without it.
ARG PANDAPROXY_VERSION
RUN apt-get update && apt-get install -y --no-install-recommends file python3 python3-venv
COPY . /src
WORKDIR /src
RUN set -eu; \
    case $TARGETARCH$TARGETVARIANT in \
    amd64*) board=generic-x86_64 ;; \
    arm64*) board=generic-aarch64 ;; \
    armv7) board=generic-armv7 ;; \
    *) board=rpi-zero ;; \
    esac; \
    boards/build.sh "$board"; \
    mkdir -p "/$TARGETARCH$TARGETVARIANT"; \
    mv "dist/pandaproxy-$board" "/$TARGETARCH$TARGETVARIANT/pandaproxy"; \
    . "boards/$board/board.env"; \
    { cat LICENSE; boards/licences.py "$TARGET"; } >"/$TARGETARCH$TARGETVARIANT/licences.txt"; \
    mkdir -p /state; \
    mkdir -m 1777 /state/pandaproxy

FROM scratch
ARG TARGETARCH TARGETVARIANT
COPY --from=binary --chmod=755 /$TARGETARCH$TARGETVARIANT/pandaproxy /pandaproxy
COPY --from=binary --chmod=644 /$TARGETARCH$TARGETVARIANT/licences.txt /licences.txt
# Certificates, in a volume. A new volume gets this folder's mode, so that any `user` may write into it, also uid 0
# without capabilities.
COPY --from=binary /state/ /var/lib/
ENV PANDAPROXY_STATE_DIR=/var/lib/pandaproxy
VOLUME /var/lib/pandaproxy
USER 65532:65532
EXPOSE 8883 6000 322 990 2024-2043 3000 3002 8080 2021/udp 1990/udp
# A first start makes an RSA key, which takes a slow board minutes.
HEALTHCHECK --interval=30s --timeout=25s --start-period=10m --retries=3 CMD ["/pandaproxy", "health"]
ENTRYPOINT ["/pandaproxy"]
