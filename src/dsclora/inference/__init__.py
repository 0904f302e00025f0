"""Pictures through an engine: tiles, strips, jobs."""
