"""Golden numbers for crates/dataset, module augment: what Pillow and torchvision make of a small seeded picture.

Made with python 3.11, Pillow 13.0.0, torchvision 0.29.2, torch 2.15.0 (CPU), numpy 2.4.6, safetensors 0.8.0.
Run: python3 make.py

expected.safetensors    image [29, 37, 3] and thin [3, 50, 3]: the pictures; of image, [29, 37, 3] each (uint8):
                        brightness.F, contrast.F, saturation.F, hue.F, blur.RADIUS, flip, grayscale, solarize.THRESHOLD;
                        thin.blur.RADIUS [3, 50, 3]; crop.FILTER.Y.X.H.W.SIZE [SIZE, SIZE, 3];
                        view.[01] [24, 24, 3]: whole chains, written out in tests/augment.rs;
                        all.WHAT [32]: SHA-256 of what becomes of every colour, in the order of 256² r + 256 g + b
"""

import hashlib
from pathlib import Path

import numpy as np
import torchvision.transforms.functional as TF
from PIL import Image, ImageFilter, ImageOps
from safetensors.numpy import save_file
from torchvision.transforms import InterpolationMode

HERE = Path(__file__).parent
FILTERS = {
    "nearest": InterpolationMode.NEAREST,
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
}
BLURS = ("0.1", "0.5", "1.0", "1.37", "2.0", "7.3", "60.0")


def picture(rng, h, w):
    """A gradient, waves, stripes and noise, with saturated and grey pixels."""
    y, x = np.mgrid[:h, :w]
    planes = [255 * x / w, 128 + 130 * np.sin(x / 5 + y / 3), 255 * ((x // 4 + y // 6) % 2)]
    noise = rng.integers(-40, 40, (h, w, 3))
    image = (np.stack(planes, -1) + noise).clip(0, 255).astype(np.uint8)
    image[y % 9 == 4] = image[y % 9 == 4][:, :1]
    return image


def blur(image, radius):
    return image.filter(ImageFilter.GaussianBlur(radius=radius))


def chain_0(image):
    image = TF.hflip(TF.resized_crop(image, 3, 5, 20, 17, [24, 24], FILTERS["bicubic"]))
    image = TF.adjust_contrast(TF.adjust_hue(TF.adjust_saturation(image, 1.17), -0.06), 0.71)
    return ImageOps.solarize(blur(TF.adjust_brightness(image, 1.33), 0.81))


def chain_1(image):
    image = TF.resized_crop(image, 0, 9, 29, 28, [24, 24], FILTERS["bilinear"])
    image = TF.adjust_hue(TF.adjust_contrast(TF.adjust_brightness(image, 0.64), 1.38), 0.09)
    return blur(TF.rgb_to_grayscale(image, 3), 1.9)


def every_colour():
    code = np.arange(1 << 24, dtype=np.uint32).reshape(4096, 4096)
    return Image.fromarray(np.stack([code >> 16, code >> 8, code], -1).astype(np.uint8))


def main():
    rng = np.random.default_rng(11)
    pixels, thin_pixels = picture(rng, 29, 37), picture(rng, 3, 50)
    image, thin = Image.fromarray(pixels), Image.fromarray(thin_pixels)
    out = {}
    for factor in ("0.0", "0.6", "0.873", "1.0", "1.4", "2.5"):
        out[f"brightness.{factor}"] = TF.adjust_brightness(image, float(factor))
        out[f"contrast.{factor}"] = TF.adjust_contrast(image, float(factor))
        out[f"saturation.{factor}"] = TF.adjust_saturation(image, float(factor))
    for factor in ("-0.5", "-0.1", "-0.037", "0.0", "0.05", "0.1", "0.5"):
        out[f"hue.{factor}"] = TF.adjust_hue(image, float(factor))
    for radius in BLURS:
        out[f"blur.{radius}"] = blur(image, float(radius))
        out[f"thin.blur.{radius}"] = blur(thin, float(radius))
    out["flip"] = TF.hflip(image)
    out["grayscale"] = TF.rgb_to_grayscale(image, 3)
    for threshold in (0, 128, 200):
        out[f"solarize.{threshold}"] = TF.solarize(image, threshold)
    for y, x, h, w, size in [(0, 0, 29, 37, 20), (4, 7, 12, 15, 24), (2, 30, 26, 5, 11), (10, 3, 1, 9, 8), (6, 6, 9, 9, 9)]:
        for name, mode in FILTERS.items():
            out[f"crop.{name}.{y}.{x}.{h}.{w}.{size}"] = TF.resized_crop(image, y, x, h, w, [size, size], mode)
    out |= {"view.0": chain_0(image), "view.1": chain_1(image)}
    out = {name: np.ascontiguousarray(result) for name, result in out.items()}
    colours = every_colour()
    for name, result in {
        "grayscale": TF.rgb_to_grayscale(colours, 3),
        "saturation.0.37": TF.adjust_saturation(colours, 0.37),
        "saturation.1.83": TF.adjust_saturation(colours, 1.83),
        "hue.0.0": TF.adjust_hue(colours, 0.0),
        "hue.-0.1": TF.adjust_hue(colours, -0.1),
        "hue.0.37": TF.adjust_hue(colours, 0.37),
    }.items():
        digest = hashlib.sha256(np.asarray(result).tobytes()).digest()
        out[f"all.{name}"] = np.frombuffer(digest, np.uint8)
    save_file(out | {"image": pixels, "thin": thin_pixels}, HERE / "expected.safetensors")


if __name__ == "__main__":
    main()
