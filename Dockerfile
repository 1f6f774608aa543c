# pawld in a container. Build:  docker build -t pawl .
# The socket is in /run/pawl and the state in /var/lib/pawl: share the first with workers, keep the second on a volume.
FROM node:20-bookworm AS build
WORKDIR /pawl
COPY . .
RUN npm ci --no-audit --no-fund && npm run build && npm pack --workspaces --pack-destination /packages

FROM node:20-bookworm-slim
RUN --mount=from=build,source=/packages,target=/packages \
    npm install --global --no-audit --no-fund /packages/*.tgz \
    && install -d -m 0700 -o node -g node /var/lib/pawl /run/pawl
USER node
ENV PAWL_SOCKET=/run/pawl/default.sock PAWL_STATE_DIR=/var/lib/pawl
VOLUME ["/var/lib/pawl", "/run/pawl"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["pawl", "call", "daemon.ping", "--timeout", "3s"]
CMD ["pawld"]
