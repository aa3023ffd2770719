"""The application: `python -m train --arch unet3plus`."""
