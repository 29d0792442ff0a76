"""The polynomial of crates/kernels/src/gelu.rs: erfc(z) / 2 ~ exp(-z^2) t (c1 + c2 t + … + c9 t^8), t = 1 / (1 + 0.3 z).

Made with python 3.11, numpy 2.4.6, scipy 1.17.1. Run: python3 erfc.py
Least squares on 0 <= z <= 9.5, weighted anew by the error until the largest relative error is as small as it gets.
"""

import numpy as np
from scipy.special import erfcx

p, degree, end = 0.3, 9, 1 / (1 + 0.3 * 9.5)
t = end + (1 - end) * (1 - np.cos(np.linspace(0, np.pi, 4001))) / 2
target = 0.5 * erfcx((1 / t - 1) / p)
basis = np.stack([t**k for k in range(1, degree + 1)], 1) / target[:, None]
weight = np.ones_like(t)
for _ in range(100):
    c = np.linalg.lstsq(basis * weight[:, None], weight, rcond=None)[0]
    error = np.abs(basis @ c - 1)
    weight *= (1e-3 + error / error.max()) ** 0.5
    weight /= weight.max()
print("highest power first:", [float(np.float32(v)) for v in c[::-1]], "largest relative error", error.max())
