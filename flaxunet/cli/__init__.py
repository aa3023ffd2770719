"""The subcommands of `python -m flaxunet`: one module each, a dataclass of options with `run`.

Heavy modules are imported when a command runs, so `--help` answers at once.
"""
