"""The storage that a repository's configuration names: ``CVMFS_UPSTREAM_STORAGE``."""

from __future__ import annotations

from cvmfs_gw.engine.errors import ConfigurationError, StorageError
from cvmfs_gw.serverconf import ServerConf, ServerConfError, Upstream
from cvmfs_objstore.errors import FormatError, InvalidPath
from cvmfs_objstore.local import LocalStorage
from cvmfs_objstore.s3conf import S3Settings
from cvmfs_objstore.storage import Storage, check_path


def open_storage(fqrn: str, upstream: Upstream, *, durable: bool = True) -> Storage:
    """The storage of *fqrn*; with *durable* false nothing on a disk is flushed.

    Raises :exc:`ConfigurationError`, and :exc:`StorageError` where a folder cannot be opened.
    """
    if upstream.kind == "local":
        try:
            return LocalStorage(upstream.location, durable=durable)
        except OSError as error:
            raise StorageError(f"{fqrn}: cannot open {upstream.location}: {error.strerror}") from error
    if upstream.kind.upper() == "S3":
        return _open_s3(fqrn, upstream)
    raise ConfigurationError(f"{fqrn}: storage of kind {upstream.kind!r} is not supported")


def public_url(fqrn: str, upstream: Upstream) -> str:
    """The URL of a repository whose ``CVMFS_STRATUM0`` nobody has said. Raises :exc:`ConfigurationError`."""
    if upstream.is_local:
        return f"http://localhost:8080/cvmfs/{fqrn}"
    prefix, settings = _settings(fqrn, upstream)
    return settings.url + prefix


def _open_s3(fqrn: str, upstream: Upstream) -> Storage:
    prefix, settings = _settings(fqrn, upstream)
    try:
        # others need not wait for this, nor have its libraries
        from cvmfs_objstore.s3 import S3Storage
    except ImportError as error:
        raise ConfigurationError(f"{fqrn}: storage on S3 needs botocore: pip install 'cvmfs-gw[s3]'") from error
    return S3Storage(settings, prefix, upstream.temp_dir)


def _settings(fqrn: str, upstream: Upstream) -> tuple[str, S3Settings]:
    """What all keys of the repository begin with, and the bucket."""
    prefix, at, path = upstream.location.partition("@")
    if not (prefix and at and path):
        raise ConfigurationError(f"{fqrn}: not a place on S3 (prefix@configuration file): {upstream.location}")
    try:
        return check_path(prefix), S3Settings.of(ServerConf.load(path, prefix).values)
    except ServerConfError as error:
        raise ConfigurationError(f"{fqrn}: {error}") from error
    except (FormatError, InvalidPath) as error:
        raise ConfigurationError(f"{fqrn}: {path}: {error}") from error
