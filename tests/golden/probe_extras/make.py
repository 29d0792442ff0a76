"""Golden numbers for crates/probe: ridge probes and k-means by scikit-learn, bands of boundaries by scipy.

Made with python 3.11, numpy 2.4.6, scipy 1.17.1, scikit-learn 1.9.1, safetensors 0.8.0.
Run: python3 make.py

ridge.safetensors      rows [n, d], soft class masses [n, c]; for penalties `alphas` (in sums, not shares) weights [a, k, c, d] of the
                       first k features (zero behind), intercepts [a, k, c], and the leave-one-out error [a, k].
kmeans.safetensors     rows [n, d]; least inertia (sum of squared distances) of 50 starts with m clusters.
boundary.safetensors   truth and prediction [i, h, w], the number of classes and widths; per image, width and class |G_d ∩ P_d|, |G_d|, |P_d|.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from scipy.ndimage import binary_erosion
from sklearn.cluster import KMeans
from sklearn.linear_model import Ridge

HERE = Path(__file__).parent


def ridge(rng, n=90, d=6, c=3, alphas=(0.0, 0.7, 30.0)):
    rows = (rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + 4).astype(np.float32)
    masses = np.maximum(0, rows[:, :c] - 4 + rng.standard_normal((n, c))).astype(np.float32)
    masses[::9] = 0
    mass = masses.astype(np.float64).sum(1)
    labelled = mass > 0
    x, w, y = rows[labelled].astype(np.float64), mass[labelled], masses[labelled] / mass[labelled, None]
    weights, biases, errors = (np.zeros((len(alphas), d, *shape)) for shape in ((c, d), (c,), ()))
    for a, alpha in enumerate(alphas):
        for k in range(1, d + 1):
            fit = lambda keep: Ridge(alpha=alpha, solver="cholesky").fit(x[keep, :k], y[keep], sample_weight=w[keep])
            whole = fit(np.full(len(x), True))
            weights[a, k - 1, :, :k], biases[a, k - 1] = whole.coef_, whole.intercept_
            for i in range(len(x)):
                miss = y[i] - fit(np.arange(len(x)) != i).predict(x[i : i + 1, :k])[0]
                errors[a, k - 1] += w[i] * (miss**2).sum() / w.sum()
    return dict(rows=rows, masses=masses, alphas=np.array(alphas), weight=weights, bias=biases, left_out=errors)


def kmeans(rng, n=400, d=4, m=6):
    rows = rng.standard_normal((m, d))[rng.integers(0, m, n)] * 3 + rng.standard_normal((n, d))
    rows = rows.astype(np.float32)
    inertia = lambda x: KMeans(m, n_init=50, tol=0, random_state=0).fit(x.astype(np.float64)).inertia_
    return dict(rows=rows, clusters=np.array([m]), inertia=np.array([inertia(rows)]))


def boundary(rng, images=3, h=40, w=56, c=4, widths=(0.02, 0.05)):
    def labels():
        out = np.zeros((h, w), np.uint8)
        for i in range(14):
            y, x = rng.integers(0, h), rng.integers(0, w)
            out[y : y + rng.integers(3, h), x : x + rng.integers(3, w)] = 255 if i == 6 else rng.integers(0, c)
        return out

    truth = np.stack([labels() for _ in range(images)])
    predicted = np.where(rng.random((images, h, w)) < 0.01, 1, np.roll(truth, 2, 2)).astype(np.uint8)
    predicted[predicted == 255] = 0
    counts = np.zeros((images, len(widths), c, 3), np.int64)
    for i in range(images):
        for j, width in enumerate(widths):
            d = max(1, round(width * float(np.hypot(h, w))))
            band = lambda mask: mask & ~binary_erosion(mask, np.ones((3, 3)), iterations=d, border_value=0)
            for k in range(c):
                g, p = band(truth[i] == k), band((predicted[i] == k) & (truth[i] != 255))
                counts[i, j, k] = (g & p).sum(), g.sum(), p.sum()
    return dict(truth=truth, predicted=predicted, classes=np.array([c]), widths=np.array(widths), counts=counts)


for seed, make in enumerate((ridge, kmeans, boundary)):
    tensors = make(np.random.default_rng(seed))
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, HERE / f"{make.__name__}.safetensors")
