# Gateway (4929) and web server (8080) of CernVM-FS repositories, as an unprivileged user.
#
#   docker build -t cvmfs-gw .
#   docker run --rm -v cvmfs-etc:/etc/cvmfs -v cvmfs-srv:/srv/cvmfs ... cvmfs-gw mkfs software.example.org
#   docker run -p 4929:4929 -p 8080:8080 -v ... cvmfs-gw
#
# compose.yaml puts it together.
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY conformance conformance
COPY cvmfs_gw cvmfs_gw
COPY cvmfs_notify cvmfs_notify
COPY cvmfs_objstore cvmfs_objstore
RUN python -m venv /opt/cvmfs-gw && /opt/cvmfs-gw/bin/pip install --no-cache-dir '.[s3]'

FROM python:3.12-slim
# The numbers stay the same for ever, as volumes remember them.
RUN groupadd --gid 4929 cvmfs \
 && useradd --uid 4929 --gid 4929 --no-create-home --home-dir /var/lib/cvmfs-gateway --shell /usr/sbin/nologin cvmfs \
 && install -d -o cvmfs -g cvmfs /etc/cvmfs /srv/cvmfs /var/spool/cvmfs /var/lib/cvmfs-gateway
COPY --from=build /opt/cvmfs-gw /opt/cvmfs-gw
ENV PATH=/opt/cvmfs-gw/bin:$PATH PYTHONUNBUFFERED=1
USER cvmfs
# Keys and configuration; the repositories; reflog checksums and statistics; leases.
VOLUME ["/etc/cvmfs", "/srv/cvmfs", "/var/spool/cvmfs", "/var/lib/cvmfs-gateway"]
EXPOSE 4929 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:4929/api/v1', timeout=2)"]
# PID 1 is a small parent that holds the sockets, starts the server again should it die, reaps, and passes SIGTERM on; the
# server stops when what is in flight is done.
ENTRYPOINT ["cvmfs-gw"]
CMD ["serve", "--host", "0.0.0.0"]
