"""The settings of a run, from the command line to a checked config."""
