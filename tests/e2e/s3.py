"""A bucket for the deployed programs and ours: on a server in this process, or on one that the environment names.

``CVMFS_GW_S3`` is the ``s3.conf`` of a bucket that may be filled with rubbish and that everybody may read; with it,
tests run in the network that they are started in.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from cvmfs_gw.serverconf import ServerConf
from cvmfs_objstore.s3conf import S3Settings
from cvmfs_objstore.s3http import Bucket
from tests.e2e.network import private_network
from tests.e2e.world import NOBODY, Repository, World
from tests.objstore.s3server import s3_conf, s3_server


class BucketWorld(World):
    """A world whose repositories lie in a bucket."""

    def __init__(self, settings: S3Settings) -> None:
        super().__init__()
        self.settings = settings
        self.conf = self.folder / "s3.conf"
        self.conf.write_text(s3_conf(settings))
        shutil.chown(self.conf, NOBODY, NOBODY)
        self.conf.chmod(0o600)

    def __enter__(self) -> BucketWorld:
        return self

    def new_name(self) -> str:
        """A repository's name that nobody has in the bucket."""
        return f"s3-{uuid.uuid4().hex[:8]}.example.org"

    def place(self, fqrn: str) -> Repository:
        """A repository of the server with its URL."""
        return Repository(fqrn, self.settings.url + fqrn, self.gateway, self.root)

    def mkfs(self, fqrn: str, *options: str) -> Repository:
        self.program("mkfs", "--s3", str(self.conf), "--ttl", "1", *options, fqrn)
        return self.place(fqrn)

    def check(self, repository: Repository) -> None:
        checksum = self.root / f"var/spool/cvmfs/{repository.fqrn}/reflog.chksum"
        self.client.check(repository.target, checksum.read_text())
        self.program("check", "--integrity", repository.fqrn)


@contextmanager
def bucket_world() -> Iterator[BucketWorld]:
    """A world with a bucket, where gateways may listen on their usual port."""
    if path := os.environ.get("CVMFS_GW_S3"):
        with BucketWorld(S3Settings.of(ServerConf.load(path).values)) as world:
            yield world
        return
    with private_network(), s3_server() as settings:
        bucket = Bucket(settings)
        bucket.request("PUT")
        bucket.close()
        with BucketWorld(settings) as world:
            yield world
