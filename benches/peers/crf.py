#!/usr/bin/env python3
"""featlab's dense CRF and pydensecrf on the same picture, in turn: 320 x 320, 10 iterations.

    cargo build --release -p featlab-segment --example crf_timing
    python3 benches/peers/crf.py [PICTURE] [--rounds 7] [--classes 27]

Without a picture one is drawn. Setting the kernels up counts, as it does for every picture. Needs numpy, pillow, pydensecrf2,
safetensors.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time

os.environ.setdefault("RAYON_NUM_THREADS", "2")

import numpy as np
import pydensecrf.densecrf as dcrf
from PIL import Image
from safetensors.numpy import save_file

SIDE, STEPS = 320, 10


def picture(path):
    if path:
        whole = Image.open(path).convert("RGB")
        side = min(whole.size)
        return np.asarray(whole.crop((0, 0, side, side)).resize((SIDE, SIDE), Image.BILINEAR))
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    drawn = np.stack([120 + 90 * np.sin(x / 40), 0.6 * y, 200 * ((x - 160) ** 2 + (y - 110) ** 2 < 6000) + 0 * x], -1)
    return np.clip(drawn + rng.normal(0, 8, drawn.shape), 0, 255).astype(np.uint8)


def reference(image, unary):
    crf = dcrf.DenseCRF2D(SIDE, SIDE, len(unary))
    crf.setUnaryEnergy(unary)
    crf.addPairwiseGaussian(sxy=1, compat=3)
    crf.addPairwiseBilateral(sxy=67, srgb=3, rgbim=image, compat=4)
    return np.array(crf.inference(STEPS)).reshape(len(unary), SIDE, SIDE)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", nargs="?")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--classes", type=int, default=27)
    arguments = parser.parse_args()
    image = picture(arguments.picture)
    coarse = np.random.default_rng(1).normal(0, 1.5, (arguments.classes, SIDE // 8, SIDE // 8))
    scores = np.stack([np.asarray(Image.fromarray(c).resize((SIDE, SIDE), Image.BILINEAR)) for c in coarse.astype(np.float32)])
    probabilities = np.exp(scores) / np.exp(scores).sum(0)
    unary = np.ascontiguousarray(-np.log(np.clip(probabilities, 1e-5, 1)).reshape(arguments.classes, -1))
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = os.path.join(folder, "in.safetensors"), os.path.join(folder, "q")
        save_file({"image": np.ascontiguousarray(image), "probabilities": probabilities}, inputs)
        target = os.environ.get("CARGO_TARGET_DIR", "target")
        program = os.path.join(target, "release", "examples", "crf_timing")
        process = subprocess.Popen([program, inputs], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def ask(line):
            print(line, file=process.stdin, flush=True)
            return float(process.stdout.readline())

        ours, theirs, many = [], [], []
        ask(outputs)
        for _ in range(arguments.rounds):
            start = time.perf_counter()
            expected = reference(bgr, unary)
            theirs.append(time.perf_counter() - start)
            ours.append(ask(""))
            many.append(ask("6"))
        process.stdin.close()
        process.wait()
        q = np.fromfile(outputs, np.float32).reshape(expected.shape)
    ratio = statistics.median(b / a for a, b in zip(ours, theirs))
    ratio_of_many = statistics.median(b / a for a, b in zip(many, theirs))
    off, same = np.abs(q - expected), (q.argmax(0) == expected.argmax(0)).mean()
    print(f"featlab {statistics.median(ours):.3f} s, pydensecrf {statistics.median(theirs):.3f} s: ratio {ratio:.2f}")
    print(f"six pictures at once: {statistics.median(many):.3f} s each: ratio {ratio_of_many:.2f}")
    print(f"marginals off by {off.mean():.1e} on average and {off.max():.1e} at most, argmax equal on {100 * same:.3f} %")


if __name__ == "__main__":
    main()
