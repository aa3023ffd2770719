"""Predicts images, volumes and files of any size with trained networks, and writes the results."""
