#!/usr/bin/env python3
"""featlab's UMAP and umap-learn on the same rows: fit, placing of new rows, trustworthiness.

    cargo build --release -p dimred --example umap_timing
    python3 benches/peers/umap.py [--rows 10000] [--new 10000] [--dim 384] [--k 12] [--rounds 1]

Rows are noisy points of a 10-dimensional manifold in 20 clouds. umap-learn runs as it does by default, on all threads and without a
seed; its functions are compiled by a small fit first, which does not count. featlab gives the same bits for any number of threads.
Needs umap-learn and scikit-learn.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

os.environ.setdefault("RAYON_NUM_THREADS", "2")
warnings.filterwarnings("ignore")
del sys.path[0]  # this folder, where this file would be taken for the package

import numpy as np
import umap
from sklearn.manifold import trustworthiness
from sklearn.preprocessing import StandardScaler


def rows(n, d, rng):
    hidden = rng.standard_normal((n, 10)) + 3 * rng.standard_normal((20, 10))[rng.integers(0, 20, n)]
    wide = np.tanh(hidden @ rng.standard_normal((10, d)) / 3) + 0.1 * rng.standard_normal((n, d))
    return wide.astype(np.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("--rows", 10_000), ("--new", 10_000), ("--dim", 384), ("--k", 12), ("--rounds", 1)):
        parser.add_argument(name, type=int, default=value)
    arguments = parser.parse_args()
    n, k = arguments.rows, arguments.k
    x = rows(n + arguments.new, arguments.dim, np.random.default_rng(0))
    scaler = StandardScaler().fit(x[:n])
    x = scaler.transform(x)
    z, new = x[:n], x[n:]
    small = umap.UMAP(n_components=k, metric="cosine").fit(z[:2000])
    small.transform(new[:100])
    figures = {"featlab": [], "umap-learn": []}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "rows.f32")
        x.tofile(path)
        program = os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release", "examples", "umap_timing")
        for _ in range(arguments.rounds):
            answer = subprocess.run([program, path, str(arguments.dim), str(arguments.new), str(k)], capture_output=True, text=True, check=True)
            figures["featlab"].append([float(word) for word in answer.stdout.split()])
            start = time.perf_counter()
            fitted = umap.UMAP(n_components=k, metric="cosine").fit(z)
            middle = time.perf_counter()
            fitted.transform(new)
            end = time.perf_counter()
            part = np.random.default_rng(1).permutation(n)[:10_000]
            trust = trustworthiness(z[part], fitted.embedding_[part], n_neighbors=15, metric="cosine")
            figures["umap-learn"].append([middle - start, end - middle, trust])
    print(f"umap-learn {umap.__version__}; {n} x {arguments.dim} to {k}, {arguments.new} new rows, {arguments.rounds} rounds")
    print("| | fit s | new rows s | trustworthiness |")
    print("|---|---|---|---|")
    for name, rounds in figures.items():
        fit, place, trust = (statistics.median(row[i] for row in rounds) for i in range(3))
        print(f"| {name} | {fit:.2f} | {place:.2f} | {trust:.4f} |")


if __name__ == "__main__":
    main()
