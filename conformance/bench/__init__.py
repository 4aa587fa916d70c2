"""Benchmarks of one gateway, or of two in turns, so that a noisy moment of the machine meets both."""
