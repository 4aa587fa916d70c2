"""What a case is, and what is kept of how it ended (:mod:`conformance.outcomes`)."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conformance.probe import Probe


class Verdict(enum.StrEnum):
    """How a case ended."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    DEVIATES = "deviates as documented"
    NOT_APPLICABLE = "not applicable"


Function = Callable[["Probe"], None]


@dataclass(frozen=True, slots=True)
class Case:
    """One requirement. ``source`` is where it comes from.

    A destructive case can kill or wedge a faulty target; one that *spoils* can leave a repository there that has
    faults, and is destructive, too.
    """

    id: str
    requirement: str
    source: str
    function: Function = field(repr=False, compare=False)
    destructive: bool = False
    spoils: bool = False

    @property
    def group(self) -> str:
        return self.id.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Result:
    """How one case ended; ``evidence`` is empty for a pass. ``known`` names the known fault that a failure shows.

    ``requests`` are the last ones before a failure, with their replies.
    """

    id: str
    requirement: str
    source: str
    verdict: Verdict
    seconds: float
    evidence: str = ""
    known: str = ""
    requests: str = ""

    @property
    def group(self) -> str:
        return self.id.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Report:
    """One run against one target. ``benchmarks`` is there after ``bench`` only.

    ``about`` says where the target is and, as ``interrupted`` or ``stopped``, after how many cases the run ended early.
    """

    target: str
    about: Mapping[str, str]
    started: str
    seconds: float
    results: tuple[Result, ...]
    benchmarks: tuple[Mapping[str, Any], ...] = ()

    def count(self, verdict: Verdict) -> int:
        return sum(result.verdict is verdict for result in self.results)

    @property
    def was_interrupted(self) -> bool:
        return "interrupted" in self.about

    @property
    def cut(self) -> str:
        """Why not all cases were tried; ``""`` if all were."""
        return next((f"{how} {self.about[how]}" for how in ("interrupted", "stopped") if how in self.about), "")

    @property
    def unexpected(self) -> list[Result]:
        """Failures that no known fault explains."""
        return [result for result in self.results if result.verdict is Verdict.FAIL and not result.known]

    def to_json(self) -> dict[str, Any]:
        """As it is kept in a file."""
        return asdict(self) | {"format": 1, "totals": {verdict.value: self.count(verdict) for verdict in Verdict}}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Report:
        """Read it again; raises ``KeyError``, ``TypeError`` and ``ValueError`` for what is no report."""
        results = tuple(Result(**(found | {"verdict": Verdict(found["verdict"])})) for found in content["results"])
        return cls(
            target=content["target"],
            about=content["about"],
            started=content["started"],
            seconds=content["seconds"],
            results=results,
            benchmarks=tuple(content.get("benchmarks", ())),
        )
