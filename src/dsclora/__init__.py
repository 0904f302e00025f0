"""Lightweight super-resolution networks, made better without making them slower, and run anywhere."""

__version__ = "0.1.0"
