"""MATLAB files as scipy writes them, for the reader of `crates/dataset/src/mat.rs`.

    python tests/golden/dataset/mat.py

Made with Python 3.11, numpy 2.4.6, scipy 1.17.1.
"""

from pathlib import Path

import numpy as np
from scipy.io import savemat

folder = Path(__file__).parent / "mat"
y, x, c = np.mgrid[:5, :7, :4]
image = (y * 41 + x * 17 + c * 101).astype(np.uint8)
label = ((3 * y + x) % 6)[:, :, 0]
with_void = label.copy()
with_void[4, 6] = 255

savemat(folder / "tile_plain.mat", {"img": image})
savemat(folder / "tile_compressed.mat", {"other": "words", "img": image, "gt": with_void.astype(np.uint8)}, do_compression=True)
unusual = with_void.astype(np.float64)
unusual[4, 6] = -1.5
savemat(folder / "label_double.mat", {"gt": unusual})
savemat(folder / "label_short.mat", {"gt": label.astype(np.int16)})
savemat(folder / "version_4.mat", {"gt": label.astype(np.float64)}, format="4")
savemat(folder / "cells.mat", {"gt": np.array([label, "x"], dtype=object)})
