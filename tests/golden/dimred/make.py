"""Golden numbers for `dimred`: scikit-learn's StandardScaler + PCA on small seeded data.

Run: python tests/golden/dimred/make.py    (made with numpy 2.4.6, scikit-learn 1.9.1, safetensors 0.8.0)

pca.safetensors, for each case NAME:
  NAME.x                [n, d] float32 rows
  NAME.mean, .scale     StandardScaler (population standard deviation, 1 for a constant column)
  NAME.components       PCA on the standardised rows in float64, rows with non-zero variance only
  NAME.explained_variance, .explained_variance_ratio
  NAME.transform        first 20 rows in min(4, rank) dimensions
  NAME.raw.*            the same without scaling
"""

import os

import numpy as np
from safetensors.numpy import save_file
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

rng = np.random.default_rng(20)


def anisotropic(n, d):
    mix = rng.standard_normal((d, d)) / (1 + np.arange(d))[:, None]
    return (rng.standard_normal((n, d)) @ mix + rng.standard_normal(d) * 3).astype(np.float32)


def cases():
    yield "plain", anisotropic(300, 12)
    x = anisotropic(200, 9)
    x[:, 4] = 2.5
    yield "constant_column", x
    x = anisotropic(150, 6)
    yield "rank_deficient", np.concatenate([x, x[:, :3] - x[:, 3:]], axis=1).astype(np.float32)
    yield "wide", anisotropic(10, 25)


out = {}
for name, x in cases():
    out[f"{name}.x"] = x
    scaler = StandardScaler().fit(x.astype(np.float64))
    out[f"{name}.mean"], out[f"{name}.scale"] = scaler.mean_, scaler.scale_
    for prefix, rows in [("", scaler.transform(x.astype(np.float64))), ("raw.", x.astype(np.float64))]:
        pca = PCA(svd_solver="full").fit(rows)
        keep = pca.explained_variance_ > 1e-9 * pca.explained_variance_[0]
        k = min(4, int(keep.sum()))
        out[f"{name}.{prefix}components"] = pca.components_[keep]
        out[f"{name}.{prefix}explained_variance"] = pca.explained_variance_[keep]
        out[f"{name}.{prefix}explained_variance_ratio"] = pca.explained_variance_ratio_[keep]
        out[f"{name}.{prefix}transform"] = pca.transform(rows)[:20, :k]

here = os.path.dirname(os.path.abspath(__file__))
save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, os.path.join(here, "pca.safetensors"))
