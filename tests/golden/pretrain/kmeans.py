"""One round of spherical k-means by scikit-learn, and ten, on unit rows.

Run: python kmeans.py (numpy 2, scikit-learn 1.9, safetensors 0.6 or newer); writes kmeans.safetensors beside itself.

scikit-learn's KMeans is Euclidean. On rows and centroids of length 1 its assignment is that of the largest inner product, and its
update is the mean of the rows; bringing the means to length 1 between rounds of one iteration each makes it spherical. Cluster 4 starts where cluster 0
does and is empty in the first round: as in DeepCluster-v2 it keeps its value, while scikit-learn would move it to a far row, so that the
update is compared to scikit-learn's in the other rounds.
"""

import pathlib
import warnings

import numpy as np
from safetensors.numpy import save_file
from sklearn.cluster import KMeans

warnings.filterwarnings("ignore")
rng = np.random.default_rng(5)
unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
rows = unit(rng.normal(size=(300, 8)) + 2.5 * rng.normal(size=(12, 8))[rng.integers(0, 12, 300)])
start = rows[:12].copy()
start[4] = start[0]


def assign(centroids):
    return (rows @ centroids.T).argmax(1)


out = {"rows": rows.astype(np.float32), "start": start.astype(np.float32)}
centroids, compared = start, 0
for round_number in range(1, 11):
    labels = assign(centroids)
    # scikit-learn's own labels for these centroids: its assignment step.
    model = KMeans(n_clusters=12, init=centroids, n_init=1, max_iter=1, algorithm="lloyd").fit(rows)
    model.cluster_centers_ = np.ascontiguousarray(centroids)
    assert (model.predict(rows) == labels).all()
    means = np.stack([rows[labels == k].mean(0) if (labels == k).any() else centroids[k] for k in range(12)])
    # Its update step, where no cluster is empty.
    if all((labels == k).any() for k in range(12)):
        one = KMeans(n_clusters=12, init=centroids, n_init=1, max_iter=1, algorithm="lloyd").fit(rows)
        assert np.allclose(one.cluster_centers_, means, atol=1e-6)
        compared += 1
    centroids = unit(means)
    if round_number in (1, 10):
        out[f"labels_before.{round_number}"] = labels.astype(np.float32)
        out[f"centroids.{round_number}"] = centroids.astype(np.float32)
        out[f"labels.{round_number}"] = assign(centroids).astype(np.float32)
assert compared >= 8
save_file(out, pathlib.Path(__file__).with_name("kmeans.safetensors"))
print({k: np.bincount(v.astype(int), minlength=12) for k, v in out.items() if "labels" in k})
