#!/usr/bin/env python3
"""The coefficients of `2^f` in crates/kernels/src/panels/math.rs, and how far off they are.

2^f = 1 + f P(f) for |f| <= 1/2, P of degree 4, fitted so that the largest relative error is the least (Remez's exchange, by
reweighted least squares on a fine grid).
"""

import numpy as np

f = np.cos(np.linspace(0, np.pi, 20001)) / 2
f = f[np.abs(f) > 1e-9]
exact = np.exp2(f)
powers = np.stack([f ** (k + 1) for k in range(4, -1, -1)], 1) / exact[:, None]  # highest power first
wanted = (exact - 1) / exact
weights = np.ones_like(f)
best = None
for _ in range(400):  # Lawson's iteration
    c = np.linalg.lstsq(powers * np.sqrt(weights)[:, None], wanted * np.sqrt(weights), rcond=None)[0]
    error = np.abs(powers @ c - wanted)
    if best is None or error.max() < best[0]:
        best = (error.max(), c)
    weights *= error + 1e-12
    weights /= weights.mean()
print("largest relative error:", best[0])
print([float(np.float32(c)) for c in best[1]])
