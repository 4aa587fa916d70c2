"""The command line. One module for each command; each adds its parser and has one function that runs it."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from conformance.outcomes import Failed

MODULES: Final = {
    "run": ("run",),
    "local": ("local",),
    "bench": ("bench",),
    "compare": ("compare",),
    "sessions": ("record", "replay", "unpack"),
    "cases": ("list",),
}
"""Which module has which commands."""

_DESCRIPTION: Final = """\
What does a CernVM-FS gateway do, seen from outside? Tries hundreds of requirements, each with its source, on any
gateway, its notification server and its repository; measures, records and replays, too.

  {program} --gateway http://gw.example.org:4929 --stratum0 http://s0.example.org/cvmfs \\
      --repo test.example.org --key /etc/cvmfs/keys/test.example.org.gw --html report.html

tries a gateway (`run --help` has all options). The repository is filled with rubbish: use one that is made for it."""
_CODES: Final = """\
exit codes: 0 no failure but known ones; 1 failures, or the run had to stop; 2 the command makes no sense, or nothing
could be tried; 130 interrupted"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    names = [name for commands in MODULES.values() for name in commands]
    # Without a command it is run, as in the description.
    if not given or (given[0] not in names and given[0] not in ("-h", "--help")):
        given.insert(0, "run")
    parsed = _parser().parse_args(given)
    parsed.given = given
    try:
        code: int = parsed.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("conformance: interrupted", file=sys.stderr)
        return 130
    except (Failed, ValueError, OSError, zipfile.BadZipFile) as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    return code


def _parser() -> argparse.ArgumentParser:
    program = "cvmfs-conformance" if Path(sys.argv[0]).name == "cvmfs-conformance" else "python -m conformance"
    parser = argparse.ArgumentParser(
        prog=program,
        description=_DESCRIPTION.format(program=program),
        epilog=_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in MODULES:
        importlib.import_module(f"{__name__}.{module}").add_parser(commands)
    return parser
