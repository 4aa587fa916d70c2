from __future__ import annotations

import pytest

from cvmfs_gw.gateway.authorization import Key
from cvmfs_gw.gateway.authorization import sign as gateway_sign
from cvmfs_notify.authorization import check_publisher, sign, webhook_signature
from cvmfs_notify.errors import PublisherRefused

KEYS = {"ci": b"secret"}


def test_as_with_the_gateway() -> None:
    assert sign("ci", b"secret", b"body") == gateway_sign(Key("ci", b"secret"), b"body")
    check_publisher(sign("ci", b"secret", b"body"), b"body", KEYS)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "ci",
        "ci ",
        "ci x",
        sign("ci", b"other", b"body"),
        sign("", b"", b"body"),
        sign("x", b"", b"body"),
        "ci ä",
    ],
)
def test_refused(header: str | None) -> None:
    with pytest.raises(PublisherRefused):
        check_publisher(header, b"body", KEYS)


def test_no_keys() -> None:
    check_publisher(None, b"body", {})


def test_webhooks() -> None:
    # RFC 4231, test case 2
    text = webhook_signature(b"Jefe", b"what do ya want for nothing?")
    assert text == "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
