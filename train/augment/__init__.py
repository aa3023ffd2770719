"""Changes training images at random, on the device."""
