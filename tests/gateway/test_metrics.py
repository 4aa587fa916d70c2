from __future__ import annotations

from cvmfs_gw.gateway.metrics import Metrics, Sample, render


def test_the_text() -> None:
    metrics = Metrics()
    metrics.add("payloads_total", outcome="ok")
    metrics.add("payloads_total", 2, outcome="ok")
    metrics.add("payload_bytes_total", 0.5)
    text = render([*metrics.samples(), Sample("leases", 1, (("state", 'a"\\\n'),))])
    assert text == (
        "# HELP cvmfs_gateway_leases Leases that are alive, by state\n"
        "# TYPE cvmfs_gateway_leases gauge\n"
        'cvmfs_gateway_leases{state="a\\"\\\\\\n"} 1\n'
        "# HELP cvmfs_gateway_payload_bytes_total Bytes of object packs that were taken in\n"
        "# TYPE cvmfs_gateway_payload_bytes_total counter\n"
        "cvmfs_gateway_payload_bytes_total 0.5\n"
        "# HELP cvmfs_gateway_payloads_total Object packs, by outcome\n"
        "# TYPE cvmfs_gateway_payloads_total counter\n"
        'cvmfs_gateway_payloads_total{outcome="ok"} 3\n'
    )
    assert metrics.total("payloads_total") == 3


def test_histograms() -> None:
    metrics = Metrics()
    for seconds in (0.001, 0.005, 0.3, 1000.0):
        metrics.observe("commit_seconds", seconds, phase="queue")
    metrics.observe("commit_seconds", 2.0, phase="engine")
    head, kind, *lines = render(metrics.samples()).splitlines()
    assert head.startswith("# HELP cvmfs_gateway_commit_seconds Time of commits by phase")
    assert kind == "# TYPE cvmfs_gateway_commit_seconds histogram"
    name = "cvmfs_gateway_commit_seconds"
    engine, queue = lines[: len(lines) // 2], lines[len(lines) // 2 :]
    assert all('phase="engine"' in line for line in engine)
    assert queue[0] == f'{name}_bucket{{phase="queue",le="0.005"}} 2'
    assert f'{name}_bucket{{phase="queue",le="0.25"}} 2' in queue
    assert f'{name}_bucket{{phase="queue",le="0.5"}} 3' in queue
    assert queue[-4:] == [
        f'{name}_bucket{{phase="queue",le="300.0"}} 3',
        f'{name}_bucket{{phase="queue",le="+Inf"}} 4',
        f'{name}_sum{{phase="queue"}} 1000.306',
        f'{name}_count{{phase="queue"}} 4',
    ]
