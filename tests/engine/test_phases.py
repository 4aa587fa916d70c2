"""What the time of a commit is spent on."""

from __future__ import annotations

from collections.abc import Iterator

from cvmfs_gw.engine.phases import PHASES, Stopwatch, describe


def test_stopwatch() -> None:
    now = 10.0

    def clock() -> float:
        return now

    watch = Stopwatch(clock)

    def make() -> Iterator[int]:
        nonlocal now
        for number in range(3):
            now += 1
            yield number
        now += 5

    now += 0.5
    for _ in watch.each(make(), made="diff", used="apply"):
        now += 100
    watch.enter("publish")
    now += 0.25
    phases = watch.stop()
    assert phases == {"read": 0.5, "diff": 8, "apply": 300, "store": 0, "publish": 0.25, "record": 0}
    assert tuple(phases) == PHASES
    assert describe({"read": 0.0123, "diff": 1}) == "read 12.3, diff 1000.0"
