"""The command line.

::

    python -m conformance --gateway URL --stratum0 URL --repo FQRN --key FILE ...    try a gateway
    python -m conformance local [--reference]                                        try one that is started for it
    python -m conformance bench ... [--against FILE]                                 measure one, or two in turns
    python -m conformance compare A.json B.json --html PAGE                          put reports side by side
    python -m conformance record --listen PORT --upstream URL --key FILE -o FILE     record publishers and subscribers
    python -m conformance replay SESSION.zip --gateway URL --key FILE                replay what was recorded
    python -m conformance list                                                       say which cases there are
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from conformance import known, options, registry
from conformance.bench.jobs import JOBS
from conformance.bench.measure import Row, measure, render
from conformance.gateway import Gateway
from conformance.model import Failed, Report
from conformance.preflight import look
from conformance.probe import Probe
from conformance.recorder import record
from conformance.reference import missing, reference
from conformance.replay import Player
from conformance.report.junit import junit
from conformance.report.markdown import markdown
from conformance.report.page import page
from conformance.report.terminal import Terminal
from conformance.repository import Repository
from conformance.runner import run
from conformance.servers import ALONE, may_be_alone, own
from conformance.session import Session
from conformance.target import Target
from conformance.wire import Key

COMMANDS = ("run", "local", "bench", "compare", "record", "replay", "list")


def main(arguments: Sequence[str] | None = None) -> int:
    """0: no failure but known ones; 1: others; 2: the command makes no sense; 130: interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Without a command it is run, as in the first line of the table above.
    if not given or (given[0] not in COMMANDS and given[0] not in ("-h", "--help")):
        given.insert(0, "run")
    parser = _parser()
    parsed = parser.parse_args(given)
    parsed.given = given
    try:
        result: int = parsed.run(parsed)
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
    return result


def _parser() -> argparse.ArgumentParser:
    description = (__doc__ or "").replace("::\n", "")
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=_program(), description=description, formatter_class=form)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("run", help="try a gateway (the default)")
    options.add_target(command)
    _add_run(command)
    command.add_argument("--force", action="store_true", help="whatever the repository holds")
    command.set_defaults(run=_remote)

    command = commands.add_parser("local", help="try a gateway that is started for it")
    command.add_argument("--reference", action="store_true", help="also the reference, where it is installed (root)")
    command.add_argument("--only-reference", action="store_true", help="the reference and nothing else")
    command.add_argument("--sessions", metavar="DIR", type=Path, help="recorded sessions to replay")
    command.add_argument("--inside", help=argparse.SUPPRESS)
    command.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    _add_run(command)
    command.set_defaults(run=_local)

    command = commands.add_parser("bench", help="measure one gateway, or two in turns")
    options.add_target(command)
    command.add_argument("--against", metavar="FILE", help="another target: a file with its options")
    command.add_argument("--local", action="store_true", help="measure one that is started for it")
    command.add_argument("--reference", action="store_true", help="and the reference, where it is installed (root)")
    command.add_argument("--inside", help=argparse.SUPPRESS)
    command.add_argument("--rounds", type=int, default=5, help="in how many turns (default: %(default)s)")
    command.add_argument("--json", metavar="FILE", type=Path)
    command.add_argument("--html", metavar="FILE", type=Path, help="the same as a page with a chart")
    command.add_argument("jobs", nargs="*", help="measure only what has one of these words in its name")
    command.add_argument("--force", action="store_true", help="whatever the repository holds")
    command.set_defaults(run=_bench)

    command = commands.add_parser("compare", help="put reports side by side")
    command.add_argument("reports", nargs="+", type=Path)
    command.add_argument("--html", metavar="FILE", type=Path)
    command.add_argument("--markdown", metavar="FILE", type=Path, help="tables of totals and of what fails")
    command.set_defaults(run=_compare)

    command = commands.add_parser("record", help="record publishers and subscribers, as a proxy in front")
    command.add_argument("--listen", type=int, required=True, metavar="PORT", help="0: any that is free")
    command.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on (default: %(default)s)")
    command.add_argument("--upstream", required=True, metavar="URL", help="the gateway, or notification server")
    command.add_argument("--key", required=True, metavar="FILE", help="to find out what is signed; it is not recorded")
    command.add_argument("--about", default="", help="what the session is")
    command.add_argument("-o", "--output", required=True, type=Path, metavar="FILE")
    command.set_defaults(run=lambda a: record(a.host, a.listen, a.upstream, Key.read(a.key), a.output, a.about))

    command = commands.add_parser("replay", help="replay a recorded session")
    command.add_argument("session", type=Path)
    command.add_argument("--gateway", required=True, metavar="URL")
    command.add_argument("--key", metavar="FILE", help="needed unless the session has one")
    command.add_argument("--stratum0", metavar="URL", help="to name present heads in place of recorded ones")
    command.add_argument("--notify", metavar="URL", default="", help="where subscribers go, if not to the gateway")
    command.add_argument("--websocket", metavar="URL", default="", help="where those go that speak WebSocket")
    command.add_argument("--ahead", type=int, default=0, help="how many revisions the repository is ahead")
    command.set_defaults(run=_replay)

    command = commands.add_parser("list", help="say which cases there are")
    command.add_argument("only", nargs="*", metavar="CASE")
    command.set_defaults(run=_list)
    return parser


def _program() -> str:
    return "cvmfs-conformance" if Path(sys.argv[0]).name == "cvmfs-conformance" else "python -m conformance"


def _add_run(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("only", nargs="*", metavar="CASE", help="groups or cases (default: all)")
    add("--destructive", action="store_true", help="also cases that can kill or wedge a faulty gateway")
    add("--known", choices=sorted(known.PROFILES), default="none", help="failures that are known of the target")
    add("--json", metavar="FILE", type=Path)
    add("--junit", metavar="FILE", type=Path)
    add("--html", metavar="FILE", type=Path)
    add("-q", "--quiet", action="store_true", help="do not show what passes")


def _run(arguments: argparse.Namespace, target: Target) -> Report:
    cases = registry.select(arguments.only)
    terminal = Terminal(quiet=arguments.quiet)
    report = run(
        target,
        cases,
        destructive=arguments.destructive,
        known=known.explain(cases, known.PROFILES[arguments.known]),
        progress=terminal.progress,
    )
    terminal.summary(report)
    return report


def _remote(arguments: argparse.Namespace) -> int:
    target = options.target(arguments)
    registry.select(arguments.only)
    _prepare(arguments)
    look(target, force=arguments.force)
    return _finish(arguments, [_run(arguments, target)])


def _prepare(arguments: argparse.Namespace) -> None:
    """Find out before a long run that a report cannot be written."""
    for path in (arguments.json, arguments.junit, arguments.html):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("a").close()


def _finish(arguments: argparse.Namespace, reports: list[Report]) -> int:
    """Write what was asked for."""
    if arguments.json:
        arguments.json.write_text(json.dumps([each.to_json() for each in reports], indent=1))
    if arguments.junit:
        arguments.junit.write_text(junit(reports[0]))
    if arguments.html:
        arguments.html.write_text(page(reports))
    if any("interrupted" in report.about for report in reports):
        return 130
    return 1 if any(report.unexpected for report in reports) else 0


def read_reports(path: Path) -> list[Report]:
    """The reports in a file; raises ``ValueError`` and ``OSError``."""
    try:
        content = json.loads(path.read_text())
        return [Report.from_json(each) for each in (content if isinstance(content, list) else [content])]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is no report: {error}") from None


def _local(arguments: argparse.Namespace) -> int:
    _prepare(arguments)
    if arguments.inside:
        return _finish(arguments, [_run(arguments, options.load(Path(arguments.inside).read_text()))])
    if not arguments.alone and may_be_alone():
        # In a mount namespace of its own it may have small disks, to fill them.
        os.execvp(ALONE[0], [*ALONE, sys.executable, "-m", "conformance", *arguments.given, "--alone"])
    reports = []
    if not arguments.only_reference:
        with own(arguments.sessions, small=arguments.alone) as target:
            # Nothing kills a gateway that was started for this.
            reports.append(_run(argparse.Namespace(**{**vars(arguments), "destructive": True}), target))
    if reports and "interrupted" in reports[0].about:
        return _finish(arguments, reports)
    if arguments.reference or arguments.only_reference:
        if why := missing():
            print(f"the reference is not tried: {why}")
        else:
            reports += _reference(arguments)
    return _finish(arguments, reports) if reports else 0


def _reference(arguments: argparse.Namespace) -> list[Report]:
    """The suite beside the reference, in its namespaces."""

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="conformance-")))
        target, enter = stack.enter_context(reference(arguments.sessions, small=arguments.alone))
        given = ["local", "--known", "reference-2.12", "--json", str(folder / "json"), *arguments.only]
        given += [flag for flag in ("--destructive", "--quiet") if getattr(arguments, flag.strip("-"))]
        _inside(target, enter, given)
        return read_reports(folder / "json")


def _inside(target: Target, enter: Sequence[str], given: Sequence[str]) -> int:
    """Run the suite in the namespaces of *target*, which it gets as a file."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        file = Path(folder) / "target"
        file.touch(0o600)
        file.write_text(options.dump(target))
        # Who enters a mount namespace leaves the working directory behind.
        python = ["env", f"PYTHONPATH={Path(__file__).parents[1]}", sys.executable, "-m", "conformance"]
        return subprocess.run([*enter, *python, *given, f"--inside={file}"], check=False).returncode


def _bench(arguments: argparse.Namespace) -> int:
    if arguments.reference and not (why := missing()):
        given = ["bench", "--local", f"--rounds={arguments.rounds}", *arguments.jobs]
        given += [f"--{name}={path.resolve()}" for name in ("json", "html") if (path := getattr(arguments, name))]
        with reference() as (target, enter):
            return _inside(target, enter, given)
    if arguments.reference:
        print(f"the reference is not measured: {why}")
    if unknown := [word for word in arguments.jobs if not any(word in job.what for job in JOBS)]:
        there = "".join(f"\n  {job.what}" for job in JOBS)
        raise ValueError(f"nothing that is measured has {unknown[0]!r} in its name; there are{there}")
    chosen = [job for job in JOBS if not arguments.jobs or any(word in job.what for word in arguments.jobs)]
    with ExitStack() as stack:
        targets = [stack.enter_context(own()) if arguments.local else options.target(arguments)]
        if arguments.against:
            parser = argparse.ArgumentParser(prog=arguments.against)
            options.add_target(parser)
            given = shlex.split(Path(arguments.against).read_text(), comments=True)
            targets.append(options.target(parser.parse_args(given)))
        if arguments.inside:
            targets.append(options.load(Path(arguments.inside).read_text()))
        if not arguments.local:
            for target in targets:
                look(target, force=arguments.force)
        rows: list[Row] = []
        for job in chosen:
            rows.append(measure(job, [next(Probe.sequence(target)) for target in targets], arguments.rounds))
            print(render(rows[-1:]), flush=True)
    print("\n" + render(rows))
    about = {target.title: target.gateway for target in targets}
    report = Report(" and ".join(about), about, "", 0.0, (), tuple(row.to_json() for row in rows))
    if arguments.json:
        arguments.json.write_text(json.dumps([report.to_json()], indent=1))
    if arguments.html:
        arguments.html.write_text(page([report]))
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    reports = [report for path in arguments.reports for report in read_reports(path)]
    if not arguments.html and not arguments.markdown:
        raise ValueError("needs --html or --markdown")
    if arguments.html:
        arguments.html.write_text(page(reports))
    if arguments.markdown:
        arguments.markdown.write_text(markdown(reports))
    return 0


def _replay(arguments: argparse.Namespace) -> int:
    session = Session.load(arguments.session)
    key = Key.read(arguments.key) if arguments.key else session.key
    if key is None:
        raise ValueError("the session has no key: --key")
    repository = Repository(arguments.stratum0, session.fqrn) if arguments.stratum0 else None
    gateway = Gateway(arguments.gateway, key)
    player = Player(gateway, session, key, repository, notify=arguments.notify, websocket=arguments.websocket)
    player.play(arguments.ahead)
    told = f", {len(session.streams)} subscribers told as recorded" if session.streams else ""
    print(f"{len(session.exchanges)} requests answered as recorded{told}")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    for case in registry.select(arguments.only):
        mark = " (destructive)" if case.destructive else ""
        print(f"{case.id}{mark}\n    {case.requirement}\n    {case.source}")
    return 0
