"""Imports point one way: from the command line down to the object store, never back.

Every import counts, wherever it stands in a file and whether it runs or is for the type checker only.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
OURS: Final = ("cvmfs_gw", "cvmfs_notify", "cvmfs_objstore", "conformance", "tests")

_BOTTOM: Final = ("cvmfs_gw.paths", "cvmfs_gw.serverconf", "cvmfs_gw.text", "cvmfs_gw.version", "cvmfs_gw.when")
_ENGINE: Final = ("cvmfs_gw.engine", *_BOTTOM, "cvmfs_objstore")
_INGEST: Final = ("cvmfs_gw.ingest", *_ENGINE)
_CARE: Final = ("cvmfs_gw.care", *_ENGINE)
_GATEWAY: Final = ("cvmfs_gw.gateway", *_CARE)
_STRATUM0: Final = ("cvmfs_gw.stratum0", "cvmfs_gw.ingest", *_GATEWAY)
_API: Final = ("cvmfs_gw.api", "cvmfs_notify", *_STRATUM0)

# What each package may import of ours. The longest name that fits a module decides.
ALLOWED: Final[dict[str, tuple[str, ...]]] = {
    "cvmfs_gw": (),
    "cvmfs_gw.__main__": ("cvmfs_gw.cli",),
    "cvmfs_gw.doctor": ("cvmfs_gw.doctor", *_GATEWAY),
    "cvmfs_gw.cli": (
        "cvmfs_gw.cli",
        "cvmfs_gw.doctor",
        "cvmfs_gw.client",
        "cvmfs_gw.ingest",
        *(name for name in _API if name != "cvmfs_notify"),
    ),
    "cvmfs_gw.api": _API,
    "cvmfs_gw.gateway": _GATEWAY,
    "cvmfs_gw.client": (
        "cvmfs_gw.client",
        "cvmfs_gw.gateway.authorization",
        "cvmfs_gw.gateway.gotime",
        *_INGEST,
    ),
    "cvmfs_gw.stratum0": _STRATUM0,
    "cvmfs_gw.ingest": _INGEST,
    "cvmfs_gw.care": _CARE,
    "cvmfs_gw.engine": _ENGINE,
    "cvmfs_gw.paths": ("cvmfs_objstore",),
    "cvmfs_gw.serverconf": ("cvmfs_objstore",),
    "cvmfs_gw.text": (),
    "cvmfs_gw.version": (),
    "cvmfs_gw.when": (),
    "cvmfs_notify": (
        "cvmfs_notify",
        "cvmfs_objstore.errors",
        "cvmfs_objstore.hashes",
        *(f"cvmfs_objstore.formats.{name}" for name in ("manifest", "signature", "keychain", "whitelist", "chain")),
    ),
    "cvmfs_objstore": ("cvmfs_objstore",),
    "conformance": ("conformance",),
}
# Libraries that have no place in a layer: what is synchronous stays so, and formats know neither network nor clock.
_ASYNCHRONOUS: Final = ("asyncio", "aiohttp", "starlette", "sse_starlette")
_NETWORK: Final = ("socket", "ssl", "http", "urllib.request", "urllib3", "aiohttp")
FORBIDDEN: Final[dict[str, tuple[str, ...]]] = {
    "cvmfs_gw.engine": (*_ASYNCHRONOUS, *_NETWORK),
    "cvmfs_gw.care": (*_ASYNCHRONOUS, *_NETWORK),
    "cvmfs_gw.ingest": (*_ASYNCHRONOUS, *_NETWORK, "time"),
    "cvmfs_gw.client": _ASYNCHRONOUS,
    "cvmfs_gw.gateway": ("aiohttp", "starlette"),
    "cvmfs_gw.stratum0": ("aiohttp", "starlette", *_NETWORK),
    "cvmfs_objstore": (*_ASYNCHRONOUS, *_NETWORK),
    "cvmfs_objstore.s3http": _ASYNCHRONOUS,
    "cvmfs_objstore.web": (),
    "cvmfs_objstore.formats": (*_ASYNCHRONOUS, *_NETWORK, "time"),
}


def is_part(name: str, whole: str) -> bool:
    return name == whole or name.startswith(whole + ".")


def imported(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Dotted names of everything that *source*, the text of *module*, imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = node.module or ""
            if node.level:
                parts = module.split(".")
                kept = parts[: len(parts) - node.level + is_package]
                parent = ".".join([*kept, *([node.module] if node.module else [])])
            yield from (f"{parent}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            argument = node.args[0]
            if called in ("import_module", "__import__") and isinstance(argument, ast.Constant):
                yield str(argument.value)


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """What *module* imports and must not."""
    names = list(imported(source, module, is_package))
    allowed = ALLOWED[max((key for key in ALLOWED if is_part(module, key)), key=len)]
    rules = [key for key in FORBIDDEN if is_part(module, key)]
    forbidden = FORBIDDEN[max(rules, key=len)] if rules else ()
    ours = [name for name in names if name.partition(".")[0] in OURS]
    bad = [name for name in ours if not any(is_part(name, whole) for whole in allowed)]
    bad += [name for name in names if any(is_part(name, library) for library in forbidden)]
    return bad


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the product with its file."""
    for package in ("cvmfs_gw", "cvmfs_notify", "cvmfs_objstore", "conformance"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def test_layers() -> None:
    seen = 0
    found = {}
    for module, path in modules():
        seen += 1
        bad = violations(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
        if bad:
            found[module] = bad
    assert found == {}
    assert seen > 50


def test_no_circles() -> None:
    """Not even for the type checker only: two modules that need each other are one, or lack a third."""
    files = dict(modules())
    graph = {
        # of "package.module.name" the module; what imports a package's own face imports nothing that comes back
        module: {
            target
            for name in imported(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")
            for target in (name, name.rpartition(".")[0])
            if target in files and target != module and files[target].name != "__init__.py"
        }
        for module, path in files.items()
        if path.name != "__init__.py"
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names them
    assert sum(map(len, graph.values())) > 1000


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("cvmfs_gw.engine.diff", "import cvmfs_gw.gateway"),
        ("cvmfs_gw.engine.diff", "from cvmfs_gw.gateway.access import Access"),
        ("cvmfs_gw.engine.diff", "from cvmfs_gw import gateway"),
        ("cvmfs_gw.engine.diff", "from ..gateway import access"),
        ("cvmfs_gw.engine.diff", "from .. import client"),
        ("cvmfs_gw.engine.diff", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import cvmfs_gw.api"),
        ("cvmfs_gw.engine.diff", "def f():\n    from cvmfs_notify.broker import Broker"),
        ("cvmfs_gw.engine.diff", "import importlib\nimportlib.import_module('cvmfs_gw.cli')"),
        ("cvmfs_gw.engine.diff", "__import__('cvmfs_gw.cli')"),
        ("cvmfs_gw.engine.diff", "import asyncio"),
        ("cvmfs_gw.engine.diff", "import tests.engine"),
        ("cvmfs_gw.engine.diff", "from cvmfs_gw.ingest import items"),
        ("cvmfs_gw.ingest.plan", "from cvmfs_gw.gateway.leases import Leases"),
        ("cvmfs_gw.ingest.plan", "from cvmfs_gw.client import publish"),
        ("cvmfs_gw.ingest.plan", "import time"),
        ("cvmfs_gw.gateway.service", "from cvmfs_gw.api import app"),
        ("cvmfs_gw.gateway.service", "import cvmfs_gw.cli.demo"),
        ("cvmfs_gw.gateway.service", "from cvmfs_gw.stratum0.service import UploadService"),
        ("cvmfs_gw.engine.edit", "from cvmfs_gw.stratum0.jobs import Job"),
        ("cvmfs_gw.stratum0.service", "from cvmfs_gw.api.app import make_app"),
        ("cvmfs_gw.stratum0.service", "import aiohttp"),
        ("cvmfs_gw.stratum0.service", "import cvmfs_notify"),
        ("cvmfs_gw.gateway.service", "from cvmfs_gw.client import publish"),
        ("cvmfs_gw.gateway.service", "import cvmfs_notify"),
        ("cvmfs_gw.api.app", "from cvmfs_gw.cli import main"),
        ("cvmfs_gw.api.app", "from cvmfs_gw.client.gateway import GatewayClient"),
        ("cvmfs_gw.cli.serve", "import conformance"),
        ("cvmfs_gw.client.publish", "from cvmfs_gw.gateway.service import GatewayService"),
        ("cvmfs_gw.client.publish", "from cvmfs_gw.api.app import make_app"),
        ("cvmfs_gw.paths", "from cvmfs_gw.engine.errors import EngineError"),
        ("cvmfs_gw.paths", "from cvmfs_gw.serverconf import ServerConf"),
        ("cvmfs_gw", "from cvmfs_gw.engine.commit import Engine"),
        ("cvmfs_objstore.hashes", "import cvmfs_gw.paths"),
        ("cvmfs_objstore.hashes", "import cvmfs_gw"),
        ("cvmfs_objstore.formats.catalog", "import urllib.request"),
        ("cvmfs_objstore.formats.catalog", "import time"),
        ("cvmfs_objstore.local", "import aiohttp.web"),
        ("cvmfs_notify.broker", "import cvmfs_objstore.objects"),
        ("cvmfs_notify.broker", "import cvmfs_objstore"),
        ("cvmfs_notify.broker", "from cvmfs_objstore.formats import catalog"),
        ("cvmfs_notify.broker", "from cvmfs_objstore.formats.manifest_of_mine import x"),
        ("cvmfs_notify.broker", "from cvmfs_gw.paths import SystemPaths"),
        ("conformance.test_leases", "import cvmfs_objstore.hashes"),
        ("conformance.test_leases", "import tests.gateway.support"),
    ],
)
def test_violations_are_found(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "cvmfs_gw.cli.serve",
            "from cvmfs_gw.api.server import serve\nimport cvmfs_objstore\nimport cvmfs_gw.client.publish",
        ),
        (
            "cvmfs_gw.api.app",
            "from cvmfs_gw.gateway import service\nfrom cvmfs_notify.broker import Broker\nimport aiohttp",
        ),
        (
            "cvmfs_gw.client.publish",
            "from cvmfs_gw.gateway.authorization import Key\nfrom cvmfs_gw.gateway import authorization",
        ),
        (
            "cvmfs_gw.engine.diff",
            "from . import errors\nfrom .tree import Node\nfrom ..paths import SystemPaths\nimport sqlite3",
        ),
        ("cvmfs_gw.gateway.service", "import asyncio\nfrom cvmfs_gw.engine.errors import EngineError"),
        (
            "cvmfs_notify.broker",
            "from cvmfs_objstore.formats.manifest import Manifest\nfrom cvmfs_objstore.errors import FormatError",
        ),
        ("cvmfs_objstore.web", "import aiohttp.web"),
        ("cvmfs_objstore.formats.catalog", "from cvmfs_objstore.hashes import ContentHash\nimport datetime"),
        ("cvmfs_gw.engine.diff", "name = 'cvmfs_gw.cli'  # import cvmfs_gw.cli"),
        ("conformance.a", "import requests"),
    ],
)
def test_what_is_allowed(module: str, source: str) -> None:
    assert violations(source, module) == []


def test_relative_imports_of_a_package() -> None:
    assert list(imported("from . import a\nfrom .b import c\nfrom .. import d", "x.y", is_package=True)) == [
        "x.y.a",
        "x.y.b.c",
        "x.d",
    ]
    assert list(imported("from . import a\nfrom .. import d", "x.y.z", is_package=False)) == ["x.y.a", "x.d"]
