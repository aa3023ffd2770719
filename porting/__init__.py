"""Weights between torch and Flax. The only package that may import torch."""
