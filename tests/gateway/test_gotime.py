from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_gw.gateway.gotime import format_duration, format_time, parse_duration, parse_time

DURATIONS = [
    (0, "0s"),
    (1, "1ns"),
    (1_100, "1.1µs"),
    (2_200_000, "2.2ms"),
    (999_999_999, "999.999999ms"),
    (1_000_000_000, "1s"),
    (3_300_000_000, "3.3s"),
    (245_000_000_000, "4m5s"),
    (245_001_000_000, "4m5.001s"),
    (599_997_348_644, "9m59.997348644s"),
    (3_600_000_000_000, "1h0m0s"),
    (7_198_000_000_000, "1h59m58s"),
    (18_367_001_000_000, "5h6m7.001s"),
    (-1_500_000_000, "-1.5s"),
]


@pytest.mark.parametrize(("nanoseconds", "text"), DURATIONS)
def test_durations(nanoseconds: int, text: str) -> None:
    assert format_duration(nanoseconds) == text
    assert parse_duration(text) == nanoseconds


@given(st.integers(-(2**63), 2**63 - 1))
def test_durations_survive(nanoseconds: int) -> None:
    assert parse_duration(format_duration(nanoseconds)) == nanoseconds


def test_durations_in_other_forms() -> None:
    assert parse_duration("+1.5h") == parse_duration("90m") == parse_duration("1h30m") == 5_400_000_000_000
    assert parse_duration("0") == 0
    assert parse_duration("1us") == parse_duration("1μs") == 1000


@pytest.mark.parametrize("text", ["", "-", "1", "s", "1x", "1s ", "1.2.3s", "one"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


TIMES = [
    (1_795_164_108_712, "2026-11-20 08:41:48.712 +0000 UTC"),
    (1_795_164_108_700, "2026-11-20 08:41:48.7 +0000 UTC"),
    (1_795_164_108_007, "2026-11-20 08:41:48.007 +0000 UTC"),
    (1_795_164_108_000, "2026-11-20 08:41:48 +0000 UTC"),
    (0, "1970-01-01 00:00:00 +0000 UTC"),
]


@pytest.mark.parametrize(("milliseconds", "text"), TIMES)
def test_times(milliseconds: int, text: str) -> None:
    assert format_time(milliseconds) == text
    assert parse_time(text) == milliseconds


@given(st.integers(0, 4_000_000_000_000))
def test_times_survive(milliseconds: int) -> None:
    assert parse_time(format_time(milliseconds)) == milliseconds


def test_times_elsewhere() -> None:
    assert parse_time("2026-11-20 09:41:48.712345678 +0100 CET") == 1_795_164_108_712
    assert parse_time("2026-11-20 03:11:48.712 -0530 XYZ") == 1_795_164_108_712


@pytest.mark.parametrize("text", ["", "2026-11-20", "2026-11-20T08:41:48Z", "2026-13-20 08:41:48 +0000 UTC"])
def test_no_times(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        parse_time(text)
