"""Reads the data of a run and makes batches of it."""
