"""Time of k-means in scikit-learn and faiss; the peer of crates/probe/examples/kmeans_timing.rs.

Run: python3 kmeans.py [n] [d] [m] [iterations]. Prints, per library, the best of some runs with one and two threads, with the mean
squared distance that was reached. Rows are seeded mixtures, the same kind as the example's. scikit-learn: Lloyd, greedy
k-means++ on all rows, tolerance 0; faiss: rows drawn by chance, all rows used (max_points_per_centroid), Euclidean and spherical.
"""

import sys
import time

import numpy as np
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

try:
    import faiss
except ImportError:
    faiss = None

n, d, m, iterations = [int(a) for a in sys.argv[1:]] + [200_000, 384, 27, 20][len(sys.argv) - 1 :]
rng = np.random.default_rng(0)
middles = rng.standard_normal((3 * m, d)).astype(np.float32)
x = middles[rng.integers(0, 3 * m, n)] + 6.0 * rng.standard_normal((n, d), dtype=np.float32)


def timed(what, fit):
    best = (float("inf"), 0, 0.0)
    for threads in (1, 2):
        with threadpool_limits(threads):
            if faiss:
                faiss.omp_set_num_threads(threads)
            for _ in range(2):
                start = time.perf_counter()
                inertia = fit()
                best = min(best, (time.perf_counter() - start, threads, inertia))
    print(f"{what}: {best[0]:.2f} s ({best[1]} threads), mean squared distance {best[2]:.4f}", flush=True)


def sklearn():
    fitted = KMeans(m, n_init=1, max_iter=iterations, tol=0, random_state=0, init="k-means++").fit(x)
    return fitted.inertia_ / n


def by_faiss(spherical):
    index = faiss.Kmeans(d, m, niter=iterations, spherical=spherical, max_points_per_centroid=n, seed=1)
    rows = x / np.linalg.norm(x, axis=1, keepdims=True) if spherical else x
    index.train(rows)
    if spherical:
        return float(2 - 2 * (rows @ index.centroids.T).max(1).mean())
    return float(index.obj[-1] / n)


print(f"n {n} d {d} m {m}, {iterations} iterations")
timed("scikit-learn, Euclidean", sklearn)
if faiss:
    timed("faiss, Euclidean", lambda: by_faiss(False))
    timed("faiss, spherical", lambda: by_faiss(True))
