"""Changes that scenarios make to a repository: functions of a directory in it, all reproducible."""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

Change = Callable[[Path], object]

EPOCH: Final = 1_600_000_000
"""When files were changed last, in seconds; each has its own nanoseconds on top."""


def stamp(path: Path, moment: int) -> None:
    """Set the time of the last change, also of a symlink; *moment* counts from :data:`EPOCH`."""
    when = (EPOCH + moment) * 10**9 + 123_456_789
    os.utime(path, ns=(when, when), follow_symlinks=False)


def put(path: Path, content: str | bytes, *, mode: int = 0o644, moment: int = 0) -> None:
    """Create or replace a file and, if need be, the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    stamp(path, moment)


def remove(path: Path) -> None:
    """Remove whatever is there."""
    if not path.is_symlink() and path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def move(old: Path, new: Path) -> None:
    """Rename a directory; with overlayfs that is a copy, as in ``mv``."""
    shutil.move(str(old), str(new))


def each(names: Iterable[str], work: Callable[[Path], object]) -> Change:
    """The change that does *work* on each of the paths."""

    def change(top: Path) -> None:
        for name in names:
            work(top / name)

    return change


def noise(seed: int, size: int) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(size)


def patchwork(path: Path, size: int, seed: int = 0) -> None:
    """A large file of *size* bytes that is quick to compress: noise and zeros in turn, no two pieces alike."""
    piece, noisy = 1 << 18, 1 << 13
    generator = random.Random(seed)
    with path.open("wb") as file:
        for _ in range(0, size, piece):
            file.write(generator.randbytes(noisy) + bytes(piece - noisy))
        file.truncate(size)
    stamp(path, seed)


# -- one maker for each kind of entry: scenarios replace every kind by every other


def _file(path: Path) -> None:
    put(path, f"a file called {path.name}\n", moment=1)


def _empty_file(path: Path) -> None:
    put(path, b"", moment=2)


def _empty_directory(path: Path) -> None:
    path.mkdir()
    stamp(path, 3)


def _directory(path: Path) -> None:
    put(path / "inner/file", "deep", moment=4)
    put(path / "file", "flat", moment=5)
    (path / "link").symlink_to("inner/file")
    stamp(path / "link", 6)


def _symlink(path: Path) -> None:
    path.symlink_to("../nowhere/" + path.name)
    stamp(path, 7)


def _fifo(path: Path) -> None:
    os.mkfifo(path, 0o640)
    stamp(path, 8)


def _device(path: Path) -> None:
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    stamp(path, 9)


def _nested(path: Path) -> None:
    put(path / "file", "in a nested catalog", moment=10)
    put(path / "below/file", "further down", moment=11)
    put(path / ".cvmfscatalog", b"", moment=12)


def _nested_twice(path: Path) -> None:
    _nested(path)
    put(path / "below/.cvmfscatalog", b"", moment=13)


KINDS: Final[dict[str, Callable[[Path], None]]] = {
    "file": _file,
    "empty": _empty_file,
    "emptydir": _empty_directory,
    "dir": _directory,
    "symlink": _symlink,
    "fifo": _fifo,
    "device": _device,
    "nested": _nested,
    "nested2": _nested_twice,
}


def ordinary(top: Path) -> None:
    """Files, directories and links of many kinds."""
    for number in range(40):
        put(top / f"many/d{number % 5}/f{number}", noise(number, 50 * number), moment=number)
    put(top / "bin/run", "#!/bin/sh\n", mode=0o755, moment=50)
    put(top / "bin/setuid", "#!/bin/sh\n", mode=0o4755, moment=51)
    put(top / "secret/file", "closed", mode=0o600, moment=52)
    (top / "secret").chmod(0o700)
    (top / "sticky").mkdir()
    (top / "sticky").chmod(0o1777)
    put(top / "owned/by-others", "owned", moment=53)
    os.chown(top / "owned/by-others", 1234, 5678)
    os.chown(top / "owned", 4321, 8765)
    put(top / "same/one", "the same content", moment=54)
    put(top / "same/two", "the same content", moment=55)
    put(top / "empty", b"", moment=56)
    links = {
        "relative": "bin/run",
        "absolute": "/etc/passwd",
        "dangling": "no/such/file",
        "to-dir": "many",
        "loop": "loop",
    }
    for name, target in links.items():
        (top / "links").mkdir(exist_ok=True)
        (top / "links" / name).symlink_to(target)
        stamp(top / "links" / name, 57)
    os.chown(top / "links/relative", 77, 78, follow_symlinks=False)
    os.symlink(b"target-\xff\xfe", os.fsencode(top / "links/not-utf8"))
    put(top / "names/with a space", "1", moment=58)
    put(top / "names/umlaut-äöü-日本", "2", moment=59)
    put(Path(os.fsdecode(os.fsencode(top / "names") + b"/latin-\xe4")), "3", moment=60)
    put(top / "names/'quoted\"; $(x) \\back", "4", moment=61)
    put(top / f"names/{'x' * 255}", "5", moment=62)
    put(top / ("deep/" * 30) / "file", "6", moment=63)
    put(top / "old", "from before the epoch began to matter", moment=-EPOCH + 5)
    put(top / "attributes/file", "attributed", moment=64)
    os.setxattr(top / "attributes/file", "user.colour", b"green")
    os.setxattr(top / "attributes/file", "user.binary", bytes(range(200)))
    os.setxattr(top / "attributes", "user.of-a-directory", b"yes")
    put(top / "twins/one", "hard", moment=65)
    os.link(top / "twins/one", top / "twins/two")


def varied(top: Path) -> None:
    """A tree with a bit of everything."""
    ordinary(top)
    for name in ("fifo", "device"):
        (top / "special").mkdir(exist_ok=True)
        KINDS[name](top / "special" / name)
    os.mknod(top / "special/block", 0o660 | stat.S_IFBLK, os.makedev(7, 300))
    os.mknod(top / "special/socket", 0o666 | stat.S_IFSOCK)


def ordinary_again(top: Path) -> None:
    """Changes of nearly all that :func:`ordinary` made, other than of owners and attributes alone."""
    put(top / "many/d0/f0", "longer than it was", moment=100)
    put(top / "many/d1/f1", b"", moment=101)
    (top / "many/d2/f2").unlink()
    shutil.rmtree(top / "many/d3")
    move(top / "many/d4", top / "many/moved")
    put(top / "many/new/file", "new", moment=102)
    (top / "bin/run").chmod(0o700)
    stamp(top / "bin/setuid", 103)
    put(top / "same/one", "no longer the same", moment=104)
    (top / "links/relative").unlink()
    (top / "links/relative").symlink_to("bin/setuid")
    stamp(top / "links/dangling", 105)
    (top / "sticky").chmod(0o755)
    (top / "empty").rename(top / "sticky/empty")
    shutil.rmtree(top / "deep/deep/deep")
    (top / "secret").chmod(0o755)


def varied_again(top: Path) -> None:
    """Changes of nearly all that :func:`varied` made."""
    ordinary_again(top)
    os.chown(top / "owned/by-others", 4444, 5555)
    os.chown(top / "owned", 0, 0)
    os.setxattr(top / "attributes/file", "user.colour", b"blue!")
    os.removexattr(top / "attributes/file", "user.binary")
    os.setxattr(top / "attributes", "user.of-a-directory", b"no")
    (top / "special/fifo").chmod(0o600)
    (top / "special/block").unlink()
    (top / "special/device").unlink()
    os.mknod(top / "special/device", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
