"""Golden numbers for crates/dataset: what Pillow and torchvision do with small seeded pictures.

Made with python 3.11, Pillow 13.0.0, torchvision 0.29.2, torch 2.15.0 (CPU), numpy 2.4.6, safetensors 0.8.0.
Run: python3 make.py

transforms.safetensors  image.HxW [h, w, 3], label.HxW [h, w]; for each FILTER and res:
                        center.FILTER.RES.HxW, squeeze.FILTER.RES.HxW [res, res, 3] (uint8; Resize + CenterCrop, and
                        Resize((res, res))), label.RES.HxW [res, res], norm.RES.HxW [3, res, res] (float32, nearest, centre)
crops.safetensors       five [n, 8]: W, H, ratio in percent, crop, x, y, w, h (torchvision's five_crop of a coordinate picture);
                        random [n, 9]: index, W, H, ratio in percent, crop, x, y, w, h (Python's hash of (index, crop, axis));
                        nearest.N.M: source index of each of M pixels (Pillow, out of N)
files.safetensors       bytes of picture and label files as Pillow writes them (NAME), and what Pillow reads (NAME.pixels)
"""

import io
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as TF
from PIL import Image
from safetensors.numpy import save_file
from torchvision.transforms import InterpolationMode

HERE = Path(__file__).parent
FILTERS = {
    "nearest": InterpolationMode.NEAREST,
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture(rng, h, w):
    """Edges, a gradient and noise."""
    y, x = np.mgrid[:h, :w]
    planes = [x * 255 // w, 255 * ((x // 5 + y // 7) % 2), 120 + 60 * np.sin(y / 3)]
    noise = rng.integers(-30, 30, (h, w, 3))
    return (np.stack(planes, -1) + noise).clip(0, 255).astype(np.uint8)


def transforms(rng):
    out = {}
    for h, w in [(37, 53), (24, 24), (70, 31)]:  # the last is resized rows first
        size = f"{h}x{w}"
        image, label = picture(rng, h, w), rng.integers(0, 12, (h, w)).astype(np.uint8)
        out |= {f"image.{size}": image, f"label.{size}": label}
        image, label = Image.fromarray(image), Image.fromarray(label)
        for res in (17, 24, 45) if h == 37 else (17, 24):
            for name, mode in FILTERS.items():
                center = T.Compose([T.Resize(res, mode), T.CenterCrop(res)])
                out[f"center.{name}.{res}.{size}"] = np.asarray(center(image))
                if res == 24:
                    out[f"squeeze.{name}.{res}.{size}"] = np.asarray(T.Resize((res, res), mode)(image))
                if name == "nearest":
                    out[f"label.{res}.{size}"] = np.asarray(center(label))
            if res == 17:
                nearest = T.Compose([T.Resize(res, FILTERS["nearest"]), T.CenterCrop(res)])
                normalise = T.Compose([nearest, T.ToTensor(), T.Normalize(MEAN, STD)])
                out[f"norm.{res}.{size}"] = normalise(image).numpy()
    return out


def crops(rng):
    five, random = [], []
    for w, h in [(480, 360), (481, 321), (31, 64), (100, 99), (7, 5)]:
        place = torch.from_numpy(np.stack(np.mgrid[:h, :w]))  # [2, h, w]: row, column
        for percent in (30, 50, 70, 90):
            size = [int(h * (percent / 100)), int(w * (percent / 100))]
            for crop, part in enumerate(TF.five_crop(place, size)):
                y, x = part[:, 0, 0].tolist()
                five.append([w, h, percent, crop, x, y, part.shape[2], part.shape[1]])
            for index in (0, 3, 2974):
                for crop in range(5):
                    y = hash((index, crop, 0)) % (h - size[0])
                    x = hash((index, crop, 1)) % (w - size[1])
                    random.append([index, w, h, percent, crop, x, y, size[1], size[0]])
    out = {"five": np.array(five, np.int32), "random": np.array(random, np.int32)}
    for _ in range(30):
        n, m = (int(v) for v in rng.integers(1, 500, 2))
        line = Image.fromarray(np.arange(n, dtype=np.int32)[None])  # mode I
        out[f"nearest.{n}.{m}"] = np.asarray(line.resize((m, 1), Image.NEAREST))[0]
    return out


def files(rng):
    out = {}

    def add(name, image, read, **options):
        buffer = io.BytesIO()
        image.save(buffer, **options)
        out[name] = np.frombuffer(buffer.getvalue(), np.uint8)
        out[f"{name}.pixels"] = np.asarray(read(Image.open(buffer)))

    def rgb(image):
        return image.convert("RGB")

    smooth = Image.fromarray(picture(rng, 20, 28)).resize((36, 28), Image.BICUBIC)
    label = Image.fromarray(rng.integers(0, 11, (20, 30)).astype(np.uint8))
    add("picture.jpg", smooth, rgb, format="JPEG", quality=90, subsampling=0)
    add("progressive.jpg", smooth, rgb, format="JPEG", quality=90, subsampling=0, progressive=True)
    add("grey.jpg", smooth.convert("L"), rgb, format="JPEG", quality=90)
    add("picture.png", smooth, rgb, format="PNG")
    add("alpha.png", Image.merge("RGBA", [*smooth.split(), smooth.split()[0]]), rgb, format="PNG")
    add("palette.png", smooth.quantize(64), rgb, format="PNG")
    # Pillow would turn this one upright only if asked to.
    exif = Image.Exif()
    exif[0x0112] = 6
    add("turned.jpg", smooth, rgb, format="JPEG", quality=90, subsampling=0, exif=exif)

    add("label.grey.png", label, lambda image: image, format="PNG")
    indexed = label.copy()
    indexed.putpalette(rng.integers(0, 256, 3 * 200).tolist())
    add("label.palette.png", indexed, lambda image: image, format="PNG")
    indexed.putpalette(rng.integers(0, 256, 3 * 12).tolist())  # few colours: Pillow packs 4 bits
    add("label.packed.png", indexed, lambda image: image, format="PNG")
    add("refused.rgb.png", indexed.convert("RGB"), lambda image: image, format="PNG")
    add("refused.wide.png", Image.fromarray(np.asarray(label).astype(np.uint16)), lambda image: image, format="PNG")
    add("refused.alpha.png", label.convert("LA"), lambda image: image, format="PNG")
    return out


if __name__ == "__main__":
    for seed, make in enumerate((transforms, crops, files)):
        tensors = make(np.random.default_rng(seed))
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, HERE / f"{make.__name__}.safetensors")
