"""The subcommands of `python -m flaxunet`: one module each, a dataclass of options with `run`.

They import what is heavy when they run, so `--help` answers at once.
"""
