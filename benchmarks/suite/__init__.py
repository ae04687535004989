"""Micro-benchmarks under pytest-benchmark."""
