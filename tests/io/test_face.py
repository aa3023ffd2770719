"""`flaxunet.io` reads and writes without the packages that only networks or some formats need."""

import subprocess
import sys


def test_reading_a_png_loads_neither_networks_nor_other_formats(tmp_path):
    code = f"""
import sys
import numpy as np
from flaxunet import io
io.write_mask({str(tmp_path / "m.png")!r}, np.eye(3, dtype=int))
assert io.read_mask({str(tmp_path / "m.png")!r}).trace() == 3
heavy = {{"jax", "flax", "optax", "nibabel", "pydicom", "scipy"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)
