from __future__ import annotations

from cvmfs_gw.engine import errors as engine_errors
from cvmfs_gw.gateway import errors
from cvmfs_gw.gateway.errors import BadPack, GatewayError, InvalidHmac, PathBusy, RepositoryBusy, describe


def _below(base: type[Exception]) -> set[type[Exception]]:
    return {error for sub in base.__subclasses__() for error in _below(sub) | {sub}}


def _leaves(base: type[Exception]) -> set[str]:
    """The errors below *base* in its own module; other packages show theirs themselves."""
    return {error.__name__ for error in _below(base) if error.__module__ == base.__module__}


def test_the_docstrings_show_every_error() -> None:
    for name in _leaves(GatewayError):
        if not name.startswith("_"):
            assert name in (errors.__doc__ or "").split(), name
    for name in _leaves(engine_errors.EngineError):
        assert name in (engine_errors.__doc__ or "").split(), name


def test_replies() -> None:
    assert describe(InvalidHmac()) == (200, {"status": "error", "reason": "invalid_hmac"})
    assert describe(RepositoryBusy()) == (200, {"status": "repo_busy"})
    assert describe(PathBusy(7_198_000)) == (200, {"status": "path_busy", "time_remaining": "1h59m58s"})
    assert describe(errors.InvalidBody()) == (400, {"status": "error", "reason": "invalid request body"})
    bad = {"status": "error", "reason": "other_error", "detail": "cut"}
    assert describe(BadPack("cut")) == (200, bad)
    merge = {"status": "error", "reason": "merge_error"}
    assert describe(engine_errors.MergeError()) == (200, merge)


def test_replies_stay_small() -> None:
    _, body = describe(errors.InvalidLeasePath("x" * 10_000))
    assert len(body["reason"]) == 500
    _, body = describe(engine_errors.MergeError("x" * 10_000))
    assert len(body["detail"]) == 500
