"""All cases, in the order in which they are run; modules of :mod:`conformance.cases` fill it when they are imported.

A group's cases are in the module of its name and in those whose names begin with it, as in ``leases_paths``.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from conformance import cases
from conformance.model import Case, Function

if TYPE_CHECKING:
    from conformance.probe import Probe

GROUPS: Final = (
    "leases",
    "authorisation",
    "payloads",
    "commits",
    "tags",
    "admin",
    "notifications",
    "objectstore",
    "errors",
    "limits",
    "concurrency",
    "faults",
    "timing",
    "replay",
    "programs",
    "restart",
)
"""Restarts come last, as they are the roughest."""

API: Final = "gateway API of release 2.12"
API13: Final = "gateway API of release 2.13"
PUBLISHER: Final = "what the publishers' HTTP client of release 2.12 needs"
CLIENT: Final = "what the mounted clients of release 2.12 need"
FORMAT: Final = "repository format, catalog schema 2.5"
PROGRAMS: Final = "what the programs of release 2.12 do"
SAFETY: Final = "bad input must cost nothing"

_cases: dict[str, Case] = {}


def issue(*numbers: int) -> str:
    """A source: issues of github.com/cvmfs/cvmfs."""
    return ", ".join(f"cvmfs#{number}" for number in numbers)


def case(
    id: str, requirement: str, source: str, *, destructive: bool = False, spoils: bool = False
) -> Callable[[Function], Function]:
    """Register the function below as a case; see :class:`Case`."""

    def register(function: Function) -> Function:
        _add(Case(id, requirement, source, function, destructive or spoils, spoils))
        return function

    return register


def each(
    prefix: str,
    source: str,
    table: Mapping[str, tuple[Any, ...]],
    *,
    destructive: bool = False,
    spoils: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a case for each row: ``{id: (requirement, *arguments)}``. A row counts as a requirement of its own."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        for name, (requirement, *arguments) in table.items():

            def run(probe: Probe, arguments: list[Any] = arguments) -> None:
                function(probe, *arguments)

            _add(Case(f"{prefix}.{name}", requirement, source, run, destructive or spoils, spoils))
        return function

    return register


def _add(case: Case) -> None:
    if case.group not in GROUPS:
        raise ValueError(f"{case.id}: no such group")
    if case.id in _cases:
        raise ValueError(f"{case.id} is there twice")
    _cases[case.id] = case


def all_cases() -> list[Case]:
    """Every case that there is, group by group."""
    names = sorted(found.name for found in pkgutil.iter_modules(cases.__path__))
    for group in GROUPS:
        for name in names:
            if name == group or name.startswith(f"{group}_"):
                importlib.import_module(f"{cases.__name__}.{name}")
    return sorted(_cases.values(), key=lambda case: GROUPS.index(case.group))


def select(names: Iterable[str]) -> list[Case]:
    """The cases whose id is one of *names* or begins with one and a dot; all for no names. Raises ``ValueError``."""
    found = all_cases()
    wanted = list(names)
    for name in wanted:
        if not any(_belongs(case, name) for case in found):
            raise ValueError(f"no such case or group: {name}")
    return [case for case in found if not wanted or any(_belongs(case, name) for name in wanted)]


def describe(case: Case) -> str:
    """The module and line that a case is written in."""
    function = inspect.unwrap(case.function)
    return f"{function.__module__}:{function.__code__.co_firstlineno}"


def _belongs(case: Case, name: str) -> bool:
    return case.id == name or case.id.startswith(name + ".")
