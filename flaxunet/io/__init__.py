"""Reads and writes image files, masks and volumes."""
