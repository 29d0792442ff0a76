#!/usr/bin/env python3
"""featlab and scikit-learn on the same rows in memory, in turn: standardisation and PCA, PCA alone, random projections.

    cargo build --release -p dimred --example pca_timing
    python3 benches/peers/pca.py [--rows 200000] [--dim 384] [--k 64] [--rounds 7]

featlab runs on two threads. scikit-learn runs on one and on two BLAS threads in every round, and the better of both counts;
figures are medians over the rounds, ratios are taken within a round. `PCA()` takes the covariance route at these shapes. The parent's
settings of OpenBLAS are put aside, so that it chooses its kernels itself. Needs scikit-learn and threadpoolctl.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time

for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)
os.environ["RAYON_NUM_THREADS"] = "2"

import numpy as np
import scipy
import sklearn
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection
from threadpoolctl import threadpool_info, threadpool_limits


def timed(f):
    start = time.perf_counter()
    result = f()
    return time.perf_counter() - start, result


class Featlab:
    def __init__(self, rows, width):
        program = os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release", "examples", "pca_timing")
        self.process = subprocess.Popen([program, rows, str(width)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line):
        print(line, file=self.process.stdin, flush=True)
        seconds, number = self.process.stdout.readline().split()
        return float(seconds), float(number)


def best_of_threads(f):
    results = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            time.sleep(0.2)  # threads of the one before fall asleep
            results.append((*f(), threads))
    return min(results)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    n, d, k = arguments.rows, arguments.dim, arguments.k
    x = np.random.default_rng(0).uniform(-1, 1, (n, d)).astype(np.float32) * np.linspace(0.5, 2, d, dtype=np.float32)
    blas = {f"{b['internal_api']} {b.get('architecture', '')}".strip() for b in threadpool_info() if b["user_api"] == "blas"}
    print(f"scikit-learn {sklearn.__version__}, numpy {np.__version__}, scipy {scipy.__version__}, {', '.join(sorted(blas))}; {n} x {d} float32")
    gaussian = GaussianRandomProjection(k, random_state=0).fit(x)
    sparse = SparseRandomProjection(k, random_state=0).fit(x)

    def standardise_and_pca():
        seconds, fitted = timed(lambda: PCA().fit(StandardScaler().fit_transform(x)))
        return seconds, float(fitted.explained_variance_[0])

    def pca():
        seconds, fitted = timed(lambda: PCA().fit(x))
        return seconds, float(fitted.explained_variance_[0])

    def projection(fitted):
        seconds, projected = timed(lambda: fitted.transform(x))
        return seconds, float((projected.astype(np.float64) ** 2).mean())

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "rows.f32")
        x.tofile(path)
        featlab = Featlab(path, d)
        tasks = {
            "StandardScaler + PCA": ("pca train", standardise_and_pca),
            "PCA": ("pca none", pca),
            f"Gaussian projection to {k}": (f"rp {k}", lambda: projection(gaussian)),
            f"sparse projection to {k}": (f"rp-sparse {k}", lambda: projection(sparse)),
        }
        figures = {name: [] for name in tasks}
        for turn in range(arguments.rounds + 1):
            for name, (request, peer) in tasks.items():
                theirs, their_number, threads = best_of_threads(peer)
                time.sleep(0.2)
                ours, our_number = featlab.ask(request)
                if turn > 0:  # the first round warms up
                    figures[name].append((ours, theirs, threads, our_number, their_number))
        featlab.process.stdin.close()
        featlab.process.wait()
    print("| | featlab s | scikit-learn s (its threads) | ratio (least to most) | largest variance or mean square, ours / theirs |")
    print("|---|---|---|---|---|")
    for name, rounds in figures.items():
        ratios = [theirs / ours for ours, theirs, *_ in rounds]
        median = lambda i: statistics.median(row[i] for row in rounds)
        threads = statistics.mode(row[2] for row in rounds)
        print(
            f"| {name} | {median(0):.3f} | {median(1):.3f} ({threads}) | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | "
            f"{rounds[0][3]:.6g} / {rounds[0][4]:.6g} |"
        )


if __name__ == "__main__":
    main()
