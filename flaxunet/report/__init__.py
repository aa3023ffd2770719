"""Overlays, pages and terminal output for human eyes."""
