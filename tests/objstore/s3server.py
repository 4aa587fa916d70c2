"""An S3 server for tests, in this process: moto's. It does not look at signatures; ``test_s3http.py`` does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import make_server

from cvmfs_objstore.s3conf import S3Settings

BUCKET = "cvmfs"


@contextmanager
def s3_server() -> Iterator[S3Settings]:
    """A server with an empty bucket, and how it is reached."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    s3_backends.reset()
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    settings = S3Settings(
        "127.0.0.1", BUCKET, "access", "secret", port=server.port, dns_buckets=False, region="us-east-1", timeout_s=30
    )
    try:
        yield settings
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def make_old(prefix: str, moment_s: float = 0) -> None:
    """Let all keys that begin so have been written at that time, if they were written later."""
    moment = datetime.fromtimestamp(moment_s, UTC)
    for account in s3_backends.values():
        for backend in account.values():
            if BUCKET in backend.buckets:
                for key, value in list(backend.buckets[BUCKET].keys.items()):
                    if key.startswith(prefix):
                        value.last_modified = min(value.last_modified.replace(tzinfo=UTC), moment)


def s3_conf(settings: S3Settings) -> str:
    """The ``s3.conf`` of a bucket."""
    values = {
        "HOST": settings.host,
        "PORT": settings.port,
        "BUCKET": settings.bucket,
        "DNS_BUCKETS": "true" if settings.dns_buckets else "false",
        "ACCESS_KEY": settings.access_key,
        "SECRET_KEY": settings.secret_key,
        "REGION": settings.region,
        "USE_HTTPS": "yes" if settings.https else "no",
        "TIMEOUT": int(settings.timeout_s),
        "MAX_RETRIES": settings.retries,
        "MAX_NUMBER_OF_PARALLEL_CONNECTIONS": settings.connections,
    }
    return "".join(f"CVMFS_S3_{key}={value}\n" for key, value in values.items() if value is not None)
