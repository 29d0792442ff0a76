"""Golden numbers for crates/segment: dense CRF inference by pydensecrf on a drawn picture.

Made with python 3.11, numpy 2.4, pydensecrf2 1.1, safetensors 0.8. Run: python3 make.py

crf.safetensors   image [h, w, 3] u8 (RGB), probabilities [k, h, w], and CASE [k, h, w]: marginals. The cases' settings are in
                  crates/segment/tests/crf.rs. The unary term is -ln of the probabilities, clipped to 1e-5 and 1; the picture is
                  handed over as BGR, as STEGO does it; kernels are diagonal, normalisation is symmetric.
"""

import numpy as np
import pydensecrf.densecrf as dcrf
from safetensors.numpy import save_file

H, W, K = 30, 41, 18
CASES = {
    # name: iterations, (weight, xy) of smoothness, (weight, xy, rgb) of appearance
    "stego": (10, (3, 1), (4, 67, 3)),
    "one_step": (1, (3, 1), (4, 67, 3)),
    "wide": (3, (2, 5), (7, 30, 13)),
    "smoothness": (5, (3, 2.5), None),
    "appearance": (5, None, (10, 80, 13)),
}


def main():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:H, :W]
    image = np.stack([120 + 90 * np.sin(x / 5), 30 + 5 * y, 200 * ((x - 20) ** 2 + (y - 14) ** 2 < 90) + 0 * x], -1)
    image = np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
    scores = rng.normal(0, 1, (K, H, W)) + 3 * (np.arange(K)[:, None, None] == (x // 7 + y // 11) % K)
    scores[:, :3, :3] = -50 * (np.arange(K)[:, None, None] > 0)  # certain
    probabilities = np.exp(scores - scores.max(0))
    probabilities = (probabilities / probabilities.sum(0)).astype(np.float32)
    unary = -np.log(np.clip(probabilities, 1e-5, 1.0)).reshape(K, -1)
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    out = {"image": image, "probabilities": probabilities}
    for name, (iterations, smoothness, appearance) in CASES.items():
        crf = dcrf.DenseCRF2D(W, H, K)
        crf.setUnaryEnergy(np.ascontiguousarray(unary))
        if smoothness:
            crf.addPairwiseGaussian(sxy=smoothness[1], compat=smoothness[0])
        if appearance:
            crf.addPairwiseBilateral(sxy=appearance[1], srgb=appearance[2], rgbim=bgr, compat=appearance[0])
        out[name] = np.array(crf.inference(iterations), dtype=np.float32).reshape(K, H, W)
    save_file({name: np.ascontiguousarray(x) for name, x in out.items()}, "crf.safetensors")


if __name__ == "__main__":
    main()
