"""Golden numbers for crates/resample: torch.nn.functional.interpolate and grid_sample in double precision.

Made with python 3.11, torch 2.15.0 (CPU), numpy 2.4.6, safetensors 0.8.0. Run: python3 make.py

resize.safetensors       inputs (float32): x, weight.HxW; outputs (float64): MODE_acX.HxW, nearest.HxW, sf.HxW,
                         nearest_sf.HxW, aa.HxW and NAME.grad = d(sum(output * weight.HxW)) / dx. "sf" (bicubic) and
                         "nearest_sf" are given scale_factor = ((H + .1) / h, (W + .1) / w) for a map of h x w,
                         and take their coordinates from it, as DINO's position embedding does. "aa" is
                         bicubic with antialias=True, as in the position embedding of DINOv2 with registers.
grid_sample.safetensors  inputs: x, grid, weight; outputs: PAD_acX, PAD_acX.grad_x, PAD_acX.grad_grid. No point
                         lies within 1e-2 px of a pixel centre or border, where the gradient is one-sided.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HERE = Path(__file__).parent
PADDINGS = ("zeros", "border")


def draw(rng, *shape):
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))


def resize(rng):
    x = draw(rng, 2, 2, 5, 7)
    h, w = x.shape[2:]
    out = {"x": x}
    # Larger, smaller, doubled, unchanged, one pixel, and one axis each way.
    for size in [(12, 17), (3, 4), (10, 14), (5, 7), (1, 1), (9, 2)]:
        name = f"{size[0]}x{size[1]}"
        weight = out[f"weight.{name}"] = draw(rng, 2, 2, *size)
        scale = ((size[0] + 0.1) / h, (size[1] + 0.1) / w)
        kinds = {f"{m}_ac{int(a)}": dict(mode=m, align_corners=a, size=size)
                 for m in ("bilinear", "bicubic") for a in (False, True)}
        kinds["nearest"] = dict(mode="nearest", size=size)
        kinds["sf"] = dict(mode="bicubic", scale_factor=scale, align_corners=False)
        kinds["aa"] = dict(mode="bicubic", align_corners=False, antialias=True, size=size)
        kinds["nearest_sf"] = dict(mode="nearest", scale_factor=scale)
        for kind, options in kinds.items():
            leaf = x.double().requires_grad_()
            y = F.interpolate(leaf, **options)
            assert y.shape[2:] == size
            out[f"{kind}.{name}"] = y.detach()
            if kind == "sf" and size == (h, w):
                continue  # torch's bicubic gradient forgets a given scale when the size stays the same
            (out[f"{kind}.{name}.grad"],) = torch.autograd.grad((y * weight.double()).sum(), leaf)
    return out


def far_from_kinks(grid, h, w):
    """Which points are at least 1e-2 px from every pixel centre and border, in both conventions."""
    ok = torch.ones(grid.shape[:-1], dtype=torch.bool)
    for axis, n in enumerate((w, h)):
        u = grid[..., axis].double()
        for at in ((u + 1) / 2 * (n - 1), ((u + 1) * n - 1) / 2):
            ok &= (at - at.round()).abs() > 1e-2
    return ok


def grid_sample(rng):
    x = draw(rng, 2, 2, 5, 7)
    grid = torch.from_numpy(rng.uniform(-1.5, 1.5, (2, 400, 2)).astype(np.float32))
    kept = [points[ok][:30] for points, ok in zip(grid, far_from_kinks(grid, *x.shape[2:]))]
    grid = torch.stack(kept).view(2, 5, 6, 2)
    weight = draw(rng, 2, 2, 5, 6)
    out = {"x": x, "grid": grid, "weight": weight}
    for padding in PADDINGS:
        for corners in (False, True):
            leaves = x.double().requires_grad_(), grid.double().requires_grad_()
            y = F.grid_sample(*leaves, padding_mode=padding, align_corners=corners)
            grads = torch.autograd.grad((y * weight.double()).sum(), leaves)
            name = f"{padding}_ac{int(corners)}"
            out |= {name: y.detach(), f"{name}.grad_x": grads[0], f"{name}.grad_grid": grads[1]}
    return out


if __name__ == "__main__":
    for seed, make in enumerate((resize, grid_sample)):
        tensors = make(np.random.default_rng(seed))
        save_file({k: v.contiguous() for k, v in tensors.items()}, HERE / f"{make.__name__}.safetensors")
