"""Random changes of training images, on the device."""
