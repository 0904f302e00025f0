"""Run pictures through an engine: tiles, strips, jobs."""
