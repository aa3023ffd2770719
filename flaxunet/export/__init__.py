"""A predictor enters; a file that other programs run leaves, whatever the size of their images."""
