"""Running cases one after the other: what comes of each, and a word on the terminal while it goes on."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from conformance.gateway import Gateway
from conformance.model import Case, Report, Result, Verdict
from conformance.outcomes import Deviates, Failed, NotApplicable
from conformance.probe import Probe, restart
from conformance.target import Target

OFF = "destructive: can kill or wedge a faulty target, run with --destructive"

SECOND_TRY: Final = ("timing",)
"""Groups whose bounds are for a machine that does nothing else: a second try counts."""
_ANSWERS_S: Final = 10.0
_COMES_BACK_S: Final = 20.0
"""Something may watch over the gateway and start it again."""
_POLL_S: Final = 0.5

Progress = Callable[[int, int, Case, Result | None], None]
"""Told before (None) and after each case: number, how many there are, the case, its result."""


def run(
    target: Target,
    cases: Sequence[Case],
    *,
    destructive: bool = False,
    known: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Try all *cases*: first those whose programs want a repository without faults, last those that may do damage,
    to the repository last of all.

    *known* names the known fault of a target that makes a case fail. The results are in the order of *cases*. When it
    is interrupted, or nothing answers any more, the report is of what was tried, and says so.
    """
    places = {case.id: number for number, case in enumerate(cases)}
    cases = sorted(cases, key=lambda case: (case.group != "programs", case.destructive, case.spoils))
    started, moment = time.monotonic(), datetime.now(UTC)
    results: list[Result] = []
    about = {"gateway": target.gateway, "stratum0": target.stratum0, "repository": target.fqrn}
    was_there = not _is_gone(target, 0.0)
    try:
        for number, (case, probe) in enumerate(zip(cases, Probe.sequence(target), strict=False), 1):
            if progress:
                progress(number, len(cases), case, None)
            if case.destructive and not destructive:
                result = Result(case.id, case.requirement, case.source, Verdict.NOT_APPLICABLE, 0.0, OFF)
            else:
                result = _try(case, probe, (known or {}).get(case.id, ""))
                if case.group in SECOND_TRY and result.verdict is Verdict.FAIL:
                    result = _try(case, next(Probe.sequence(target)), result.known)
            results.append(result)
            if progress:
                progress(number, len(cases), case, result)
            if was_there and result.verdict is Verdict.FAIL:
                _revive(target, case, result)
    except KeyboardInterrupt:
        about["interrupted"] = f"after {len(results)} of {len(cases)} cases"
    except _Gone as reason:
        about["stopped"] = f"after {len(results)} of {len(cases)} cases: {reason}"
    return Report(
        target=target.title,
        about=about,
        started=moment.isoformat(timespec="seconds"),
        seconds=time.monotonic() - started,
        results=tuple(sorted(results, key=lambda result: places[result.id])),
    )


class _Gone(Exception):
    """There is nothing left to try; the text says why."""


def _revive(target: Target, case: Case, result: Result) -> None:
    """After a failure that may have wedged or killed the gateway; raises :exc:`_Gone`."""
    wedged = case.destructive or result.evidence.startswith("TimeoutError")
    if target.restart_command and (wedged or _is_gone(target, 0.0)):
        try:
            restart(target.restart_command)
        except Failed as failure:
            raise _Gone(str(failure)) from failure
    if _is_gone(target, _COMES_BACK_S):
        raise _Gone(f"after {case.id} nothing answers any more")


def _is_gone(target: Target, patience: float) -> bool:
    """Whether nothing answers, not even badly, for so many seconds."""
    gateway, deadline = Gateway(target.gateway, target.key, _ANSWERS_S), time.monotonic() + patience
    while True:
        try:
            gateway.get("/repos")
            return False
        except Failed:
            return False
        except OSError:
            if time.monotonic() >= deadline:
                return True
            time.sleep(_POLL_S)


def _try(case: Case, probe: Probe, known: str) -> Result:
    started = time.monotonic()
    verdict, evidence = Verdict.PASS, ""
    try:
        case.function(probe)
    except Deviates as reason:
        verdict, evidence = Verdict.DEVIATES, str(reason)
    except NotApplicable as reason:
        verdict, evidence = Verdict.NOT_APPLICABLE, str(reason)
    except Failed as failure:
        verdict, evidence = Verdict.FAIL, str(failure)
    except OSError as error:
        verdict, evidence = Verdict.FAIL, f"{type(error).__name__}: {error}"
    except Exception:
        verdict, evidence = Verdict.FAIL, traceback.format_exc(limit=-6)
    finally:
        requests = str(probe.trace)
        probe.close()
    seconds = time.monotonic() - started
    if verdict is not Verdict.FAIL:
        known = requests = ""
    return Result(case.id, case.requirement, case.source, verdict, seconds, evidence, known, requests)
