"""The page that says what our check and the reference's find, of each corruption that the tests plant.

python -m tests.care.damage_table        writes it anew
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.care.damage import DAMAGES

PAGE: Final = Path(__file__).parents[2] / "docs" / "check.md"
_HEAD: Final = """\
# What a check finds

Each line is a corruption that the tests plant into a small repository, what `cvmfs-gw check` says of it, and whether
`cvmfs_swissknife check -c` of CernVM-FS 2.12 says anything. "read" is found with `--integrity` alone, "mended" is what
`--repair` mends. This page is made by `python -m tests.care.damage_table`; a test compares it with what is planted,
and where the reference is installed, the tests ask it.

"""


def page() -> str:
    """The whole page."""
    found = sum(damage.reference for damage in DAMAGES)
    last = f"\n{len(DAMAGES)} corruptions: ours finds {len(DAMAGES)}, the reference {found}.\n"
    return _HEAD + "".join(_lines()) + last


def _lines() -> Iterator[str]:
    yield "| planted | `cvmfs-gw check` | what it means | | reference |\n| --- | --- | --- | --- | --- |\n"
    for damage in DAMAGES:
        kind = damage.kind
        notes = ", ".join(["read"] * damage.integrity + ["mended"] * bool(kind.repair.value))
        code = f"{kind.severity.value} `{kind.code}`"
        yield f"| {damage.name} | {code} | {kind.what} | {notes} | {'yes' if damage.reference else 'no'} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
