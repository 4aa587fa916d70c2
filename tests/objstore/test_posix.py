"""File system calls: flushing, modes, partial writes."""

from __future__ import annotations

import ctypes
import os
import stat
from pathlib import Path

import pytest

from cvmfs_objstore import posix


@pytest.fixture
def folder_fd(tmp_path: Path) -> int:
    return os.open(tmp_path, os.O_RDONLY)


def test_sync_file_system(folder_fd: int) -> None:
    posix.sync_file_system(folder_fd)
    os.close(folder_fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        posix.sync_file_system(folder_fd)


def test_a_failed_flush_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "_syncfs", lambda fd: -1)
    monkeypatch.setattr(ctypes, "get_errno", lambda: 5)
    with pytest.raises(OSError, match="Input/output error"):
        posix.sync_file_system(0)


def test_without_syncfs_everything_is_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(posix, "_syncfs", None)
    monkeypatch.setattr(os, "sync", lambda: calls.append("sync"))
    posix.sync_file_system(0)
    assert calls == ["sync"]


def test_umask(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0o027)
    try:
        assert posix.umask() == 0o027
    finally:
        os.umask(before)

    def missing(*args: object, **kwargs: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", missing)
    assert posix.umask() == 0o777


def test_make_dir(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        posix.make_dir(str(tmp_path / "new"))
        posix.make_dir(str(tmp_path / "new"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o755
    posix.sync_dir(str(tmp_path / "new"))


def test_write_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data[:3])))
    fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    posix.write_all(fd, memoryview(b"0123456789"))
    posix.write_all(fd, memoryview(b""))
    os.close(fd)
    assert (tmp_path / "file").read_bytes() == b"0123456789"
