"""Files of images enter; a folder of masks and tables leaves: what `python -m flaxunet predict` does."""
