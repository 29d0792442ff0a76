"""Time of StandardScaler + full PCA in scikit-learn; the peer of crates/dimred/examples/pca_timing.rs.

Run: python3 pca.py [n] [d]. Prints the best of 3 for one BLAS thread and for two. PCA(svd_solver="auto") takes the
covariance route at these shapes; the scaler is timed with it, because the fit that it replaces needs both.
"""

import sys
import time

import numpy as np
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

n, d = [int(a) for a in sys.argv[1:]] + [200_000, 384][len(sys.argv) - 1:]
x = np.random.default_rng(0).uniform(-1, 1, (n, d)).astype(np.float32)
for threads in (1, 2):
    with threadpool_limits(threads):
        best = {"scaler": float("inf"), "pca": float("inf")}
        for _ in range(3):
            start = time.perf_counter()
            z = StandardScaler().fit_transform(x)
            middle = time.perf_counter()
            PCA().fit(z)
            best["scaler"] = min(best["scaler"], middle - start)
            best["pca"] = min(best["pca"], time.perf_counter() - middle)
    print(f"n {n} d {d}, {threads} threads: scaler {best['scaler']:.3f} s + PCA {best['pca']:.3f} s = {sum(best.values()):.3f} s")
