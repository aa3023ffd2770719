"""The ways in which data sets are laid out on disk, one file each."""
