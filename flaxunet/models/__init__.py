"""The networks: encoders, decoders and the segmenter that joins them."""
