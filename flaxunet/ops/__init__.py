"""Arithmetic on NHWC maps: convolution, resizing, rematerialisation."""
