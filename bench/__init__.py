"""Benchmarks, each one command. None is part of the product or of its tests."""
