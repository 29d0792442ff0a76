"""The polynomial of crates/probe/src/exp.rs: prints q and its error, for exp(r) ~ 1 + r + r^2 q(r) on |r| <= ln(2)/2.

Made with python 3.11, numpy 2.4.6. Run: python3 exp.py
Lawson's iteration: least squares, weighted anew by the error until the largest relative error is as small as it gets.
"""

import numpy as np

r = np.cos(np.linspace(0, np.pi, 4001)) * np.log(2) / 2 * 1.0005
basis = np.stack([r**k for k in range(2, 7)], 1) / np.exp(r)[:, None]
target = 1 - (1 + r) / np.exp(r)
weight = np.ones_like(r)
for _ in range(400):
    root = np.sqrt(weight)
    q = np.linalg.lstsq(basis * root[:, None], target * root, rcond=None)[0]
    error = np.abs(basis @ q - target)
    weight *= error / error.max() + 1e-9
    weight /= weight.sum()
print("highest power first:", [str(np.float32(v)) for v in q[::-1]], "error", error.max())
