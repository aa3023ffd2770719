"""A network on disk: saves, loads, and takes over weights."""
