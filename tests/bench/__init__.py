"""Benchmarks: ``python -m tests.bench [NAME...]``, beside the reference where its programs are on ``PATH``.

Each module of this package that has a function ``rows(rounds) -> list[Row]`` is one benchmark. They are no tests:
figures are printed, with the ratio and what was aimed at, and never asserted, as machines differ.
"""
