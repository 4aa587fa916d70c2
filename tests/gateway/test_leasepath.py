from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfs_gw.gateway.errors import InvalidLeasePath
from cvmfs_gw.gateway.leasepath import LeasePath


@pytest.mark.parametrize(
    ("text", "fqrn", "path", "stored"),
    [
        ("a.org/", "a.org", "", "/"),
        ("a.org//", "a.org", "", "/"),
        ("a.org/x", "a.org", "/x", "/x"),
        ("a.org//x", "a.org", "/x", "/x"),
        ("a.org/x/y z/ü", "a.org", "/x/y z/ü", "/x/y z/ü"),
        ("a.org/..x/.y/...", "a.org", "/..x/.y/...", "/..x/.y/..."),
        ("a.org/\udcff", "a.org", "/\udcff", "/\udcff"),
        ("a.org/" + "n" * 255, "a.org", "/" + "n" * 255, "/" + "n" * 255),
    ],
)
def test_parse(text: str, fqrn: str, path: str, stored: str) -> None:
    parsed = LeasePath.parse(text)
    assert (parsed.fqrn, parsed.path, parsed.stored) == (fqrn, path, stored)
    assert str(parsed) == fqrn + stored
    assert LeasePath.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "missing repository name or subpath"),
        ("a.org", "missing repository name or subpath"),
        ("/", "input has leading slash"),
        ("/a.org/x", "input has leading slash"),
        ("a.org///", "invalid lease path: doubled or trailing slash"),
        ("a.org///x", "invalid lease path: doubled or trailing slash"),
        ("a.org/x/", "invalid lease path: doubled or trailing slash"),
        ("a.org/x//y", "invalid lease path: doubled or trailing slash"),
        ("a.org/.", "invalid lease path: component '.'"),
        ("a.org/..", "invalid lease path: component '..'"),
        ("a.org/x/../y", "invalid lease path: component '..'"),
        ("a.org/x\0", "invalid lease path: holds a NUL"),
        ("a\0.org/x", "invalid lease path: holds a NUL"),
        ("a.org/" + "ü" * 128, "invalid lease path: a component over 255 bytes"),
        ("a.org/" + "x/" * 2045 + "x", "invalid lease path: over 4096 bytes"),
        ("a.org/\ud800", "invalid lease path: not made of bytes"),
    ],
)
def test_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidLeasePath) as caught:
        LeasePath.parse(text)
    assert caught.value.reason == reason


def path(text: str) -> LeasePath:
    return LeasePath.parse(f"a.org/{text}")


def test_within() -> None:
    assert path("x/y").within(path("x"))
    assert path("x").within(path("x"))
    assert path("x").within(path(""))
    assert not path("").within(path("x"))
    assert not path("xy").within(path("x"))
    assert not path("X").within(path("x"))
    assert not path("x_").within(path("x%"))
    assert not path("x").within(LeasePath("b.org", ""))


def test_components() -> None:
    assert path("").components == ()
    assert path("x/y").components == ("x", "y")


names = st.lists(st.sampled_from(["a", "ab", "A", "%", "_"]), max_size=3)


@given(names, names)
def test_overlap_is_a_common_prefix(first: list[str], second: list[str]) -> None:
    one, two = path("/".join(first)), path("/".join(second))
    shorter = min(len(first), len(second))
    assert one.overlaps(two) == two.overlaps(one) == (first[:shorter] == second[:shorter])


@given(st.text(max_size=40))
def test_nothing_else_comes_out(text: str) -> None:
    try:
        parsed = LeasePath.parse(text)
    except InvalidLeasePath:
        return
    assert "//" not in parsed.path
    assert not parsed.path.endswith("/")
    assert not {"", ".", ".."} & set(parsed.components)
    assert LeasePath.parse(str(parsed)) == parsed
