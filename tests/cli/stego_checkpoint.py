"""A small STEGO as PyTorch Lightning leaves it, and what PyTorch predicts with it.

    stego_checkpoint.py CHECKPOINT PICTURE.png OUT

Writes CHECKPOINT (a vision transformer of two blocks, a head, both probes, and an object of a class that exists nowhere else) and, for the
square picture, OUT/{linear,cluster}.bin: the labels of every pixel by the original's evaluation. Codes of the picture and of its mirror image
are averaged and upsampled, then the probes are asked. `export CHECKPOINT` alone checks that torch.load opens a file and prints its keys.
"""

import sys

import torch
import torch.nn.functional as F

DIM, DEPTH, HEADS, PATCH, CODE, CLASSES = 192, 2, 3, 8, 6, 4


class Settings:
    def __init__(self):
        self.dim, self.nested = CODE, {"a": [1, 2.5]}


def weights():
    torch.manual_seed(3)
    draw = lambda *shape: 0.08 * torch.randn(*shape)
    state = {
        "cls_token": draw(1, 1, DIM),
        "pos_embed": draw(1, 1 + 28 * 28, DIM),
        "patch_embed.proj.weight": draw(DIM, 3, PATCH, PATCH),
        "patch_embed.proj.bias": draw(DIM),
        "norm.weight": 1 + draw(DIM),
        "norm.bias": draw(DIM),
    }
    for i in range(DEPTH):
        for name, shape in {
            "attn.qkv": (3 * DIM, DIM), "attn.proj": (DIM, DIM), "mlp.fc1": (4 * DIM, DIM), "mlp.fc2": (DIM, 4 * DIM),
        }.items():
            state[f"blocks.{i}.{name}.weight"], state[f"blocks.{i}.{name}.bias"] = draw(*shape), draw(shape[0])
        for name in ("norm1", "norm2"):
            state[f"blocks.{i}.{name}.weight"], state[f"blocks.{i}.{name}.bias"] = 1 + draw(DIM), draw(DIM)
    full = {"net.model." + name: tensor for name, tensor in state.items()}
    for name, shape in {
        "net.cluster1.0": (CODE, DIM, 1, 1), "net.cluster2.0": (DIM, DIM, 1, 1), "net.cluster2.2": (CODE, DIM, 1, 1),
        "linear_probe": (CLASSES, CODE, 1, 1),
    }.items():
        full[name + ".weight"], full[name + ".bias"] = draw(*shape), draw(shape[0])
    full["cluster_probe.clusters"] = torch.randn(CLASSES, CODE)
    return full


def features(state, image):
    get = lambda name: state["net.model." + name]
    x = F.conv2d(image, get("patch_embed.proj.weight"), get("patch_embed.proj.bias"), stride=PATCH)
    h, w = x.shape[-2:]
    x = torch.cat([get("cls_token").expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
    table = get("pos_embed")[:, 1:].reshape(1, 28, 28, DIM).permute(0, 3, 1, 2)
    table = F.interpolate(table, scale_factor=((h + 0.1) / 28, (w + 0.1) / 28), mode="bicubic", recompute_scale_factor=False)
    x = x + torch.cat([get("pos_embed")[:, :1], table.flatten(2).transpose(1, 2)], 1)
    norm = lambda x, name: F.layer_norm(x, (DIM,), get(name + ".weight"), get(name + ".bias"), 1e-6)
    linear = lambda x, name: F.linear(x, get(name + ".weight"), get(name + ".bias"))
    for i in range(DEPTH):
        b, t, _ = x.shape
        q, k, v = linear(norm(x, f"blocks.{i}.norm1"), f"blocks.{i}.attn.qkv").reshape(b, t, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        attention = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, DIM)
        x = x + linear(attention, f"blocks.{i}.attn.proj")
        x = x + linear(F.gelu(linear(norm(x, f"blocks.{i}.norm2"), f"blocks.{i}.mlp.fc1")), f"blocks.{i}.mlp.fc2")
    return norm(x, "norm")[:, 1:].transpose(1, 2).reshape(len(x), DIM, h, w)


def conv(state, x, name):
    return F.conv2d(x, state[name + ".weight"], state[name + ".bias"])


def codes(state, image):
    x = features(state, image)
    return conv(state, x, "net.cluster1.0") + conv(state, conv(state, x, "net.cluster2.0").relu(), "net.cluster2.2")


def main():
    if sys.argv[1] == "export":
        file = torch.load(sys.argv[2], weights_only=True)
        for name, tensor in sorted(file["state_dict"].items()):
            print(name, list(tensor.shape))
        return
    state = weights()
    torch.save(
        {"epoch": 1, "state_dict": state, "hyper_parameters": {"n_classes": CLASSES, "cfg": Settings()}, "callbacks": {Settings: 1}},
        sys.argv[1],
    )
    import numpy as np
    from PIL import Image

    pixels = torch.from_numpy(np.array(Image.open(sys.argv[2]).convert("RGB"))).permute(2, 0, 1)[None] / 255.0
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    image = (pixels - mean) / std
    with torch.no_grad():
        code = (codes(state, image) + codes(state, image.flip(-1)).flip(-1)) / 2
        code = F.interpolate(code, image.shape[-2:], mode="bilinear", align_corners=False)
        linear = conv(state, code, "linear_probe").argmax(1)
        cosine = torch.einsum("bchw,nc->bnhw", F.normalize(code, dim=1), F.normalize(state["cluster_probe.clusters"], dim=1))
    for name, labels in (("linear", linear), ("cluster", cosine.argmax(1))):
        open(f"{sys.argv[3]}/{name}.bin", "wb").write(labels.to(torch.uint8).numpy().tobytes())


main()
