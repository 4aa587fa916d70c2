from __future__ import annotations

from cvmfs_gw.gateway.metrics import Metrics, Sample, render


def test_the_text() -> None:
    metrics = Metrics()
    metrics.add("payloads_total", outcome="ok")
    metrics.add("payloads_total", 2, outcome="ok")
    metrics.add("payload_seconds_total", 0.5)
    text = render([*metrics.samples(), Sample("leases", 1, (("state", 'a"\\\n'),))])
    assert text == (
        "# HELP cvmfs_gateway_leases Leases that are alive, by state\n"
        "# TYPE cvmfs_gateway_leases gauge\n"
        'cvmfs_gateway_leases{state="a\\"\\\\\\n"} 1\n'
        "# HELP cvmfs_gateway_payload_seconds_total Time that object packs took from their first byte to their last\n"
        "# TYPE cvmfs_gateway_payload_seconds_total counter\n"
        "cvmfs_gateway_payload_seconds_total 0.5\n"
        "# HELP cvmfs_gateway_payloads_total Object packs, by outcome\n"
        "# TYPE cvmfs_gateway_payloads_total counter\n"
        'cvmfs_gateway_payloads_total{outcome="ok"} 3\n'
    )
    assert metrics.total("payloads_total") == 3
