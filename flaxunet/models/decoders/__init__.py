"""Decoders: from a pyramid of feature maps to one map, and others for deep supervision."""
