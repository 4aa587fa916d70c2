"""``python -m tests.bench``: run every benchmark that there is, or those that are named."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import subprocess
import sys

import tests.bench
from tests.bench.table import render

HELPERS = frozenset({"client", "listeners"})
"""Programs that benchmarks run, and that are none themselves."""


def main() -> int:
    """Run them one after the other; each prints its table when it is done."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=tests.bench.__doc__)
    parser.add_argument("names", nargs="*", help="benchmarks to run (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each, of which the median counts")
    parser.add_argument("--list", action="store_true", help="say which there are")
    arguments = parser.parse_args()
    # programs as they are installed: compiled
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    found = {}
    for info in pkgutil.iter_modules(tests.bench.__path__):
        module = importlib.import_module(f"tests.bench.{info.name}") if info.name != "__main__" else None
        if hasattr(module, "rows") or (hasattr(module, "main") and info.name not in HELPERS):
            found[info.name] = module
    if unknown := set(arguments.names) - set(found):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(found)}")
    for name, module in found.items():
        if arguments.names and name not in arguments.names:
            continue
        title = ((module and module.__doc__) or "").partition("\n")[0]
        print(f"\n{name}: {title}", flush=True)
        if arguments.list or module is None:
            continue
        if hasattr(module, "rows"):
            print(render(module.rows(arguments.rounds)), flush=True)
        else:
            # one that prints by itself, in a process of its own
            subprocess.run([sys.executable, "-m", f"tests.bench.{name}"], check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
