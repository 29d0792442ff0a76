"""Golden numbers for crates/backbone: a small ViT with DINO's position interpolation, in double precision.

Made with python 3.11, torch 2.15.0 (CPU), transformers 5.23.0, safetensors 0.8.0. Run: python3 make.py

The network is transformers' ViT (d 8, 2 blocks, 2 heads, patch 8, table 3 x 3); only its embedding is written out here, with
F.interpolate(scale_factor = ((h + .1) / G, (w + .1) / G), mode="bicubic") as DINO has it. The random weights are large
enough that every path matters. They are saved three times:

weights.pth               DINO's names, torch.save as a zip archive
weights_legacy.pth        the same in the container from before PyTorch 1.6
hf/                       Hugging Face names in model.safetensors, with config.json

expected.safetensors      img.HxW, the images; computed from them in double precision and rounded to float32:
                          pos.HxW [1, 1 + t, d], tokens.HxW [b, 1 + t, d], layers.HxW [depth, b, 1 + t, d],
                          qI, kI, vI.HxW of block I and k.HxW of the last one [b, heads, 1 + t, hd],
                          attnI.HxW [b, heads, 1 + t, 1 + t]
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import ViTConfig, ViTModel

HERE = Path(__file__).parent
D, DEPTH, HEADS, PATCH, G = 8, 2, 2, 8, 3


def model():
    """A ViTModel whose weights are large enough that every path matters."""
    torch.manual_seed(0)
    config = ViTConfig(hidden_size=D, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=2 * D,
                       patch_size=PATCH, image_size=G * PATCH, hidden_act="gelu", layer_norm_eps=1e-6,
                       hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, attn_implementation="eager")
    vit = ViTModel(config, add_pooling_layer=False).eval()
    for name, p in vit.named_parameters():
        fan_in = p[0].numel() if p.ndim in (2, 4) else 4
        gain = 2.0 if "q_proj.weight" in name or "k_proj.weight" in name else 1.0
        offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        p.data = torch.randn_like(p) * gain * fan_in ** -0.5 + offset
    return vit


def dino_state_dict(vit):
    """The weights under DINO's names."""
    s = {n: p.detach() for n, p in vit.named_parameters()}
    out = {"cls_token": s["embeddings.cls_token"], "pos_embed": s["embeddings.position_embeddings"]}
    for end in ("weight", "bias"):
        out[f"patch_embed.proj.{end}"] = s[f"embeddings.patch_embeddings.projection.{end}"]
        out[f"norm.{end}"] = s[f"layernorm.{end}"]
        for i in range(DEPTH):
            old, new = f"layers.{i}", f"blocks.{i}"
            out[f"{new}.attn.qkv.{end}"] = torch.cat([s[f"{old}.attention.{x}_proj.{end}"] for x in "qkv"])
            out[f"{new}.attn.proj.{end}"] = s[f"{old}.attention.o_proj.{end}"]
            out[f"{new}.norm1.{end}"] = s[f"{old}.layernorm_before.{end}"]
            out[f"{new}.norm2.{end}"] = s[f"{old}.layernorm_after.{end}"]
            for fc in ("fc1", "fc2"):
                out[f"{new}.mlp.{fc}.{end}"] = s[f"{old}.mlp.{fc}.{end}"]
    return {n: t.clone() for n, t in out.items()}


def positions(vit, h, w):
    """DINO's position table for a grid h x w: bicubic with the scale itself, not the size, given."""
    table = vit.embeddings.position_embeddings
    if (h, w) == (G, G):
        return table
    grid = table[:, 1:].reshape(1, G, G, D).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, scale_factor=((h + 0.1) / G, (w + 0.1) / G), mode="bicubic")
    assert grid.shape[2:] == (h, w)
    return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], 1)


@torch.no_grad()
def outputs(vit, image, size):
    """Everything that is compared, for double-precision images [b, 3, h, w]."""
    b, h, w = len(image), image.shape[2] // PATCH, image.shape[3] // PATCH
    projected = {}
    hooks = [getattr(layer.attention, f"{x}_proj").register_forward_hook(
        lambda _m, _i, y, key=f"{x}{i}": projected.__setitem__(key, y.reshape(b, -1, HEADS, D // HEADS).transpose(1, 2)))
        for i, layer in enumerate(vit.layers) for x in "qkv"]
    x = vit.embeddings.patch_embeddings.projection(image).flatten(2).transpose(1, 2)
    pos = positions(vit, h, w)
    x = torch.cat([vit.embeddings.cls_token.expand(b, -1, -1), x], 1) + pos
    layers = []
    for layer in vit.layers:
        x = layer(x)
        layers.append(vit.layernorm(x))
    out = {"pos": pos, "tokens": layers[-1], "layers": torch.stack(layers), **projected, "k": projected[f"k{DEPTH - 1}"]}
    for i in range(DEPTH):
        q, k = projected[f"q{i}"], projected[f"k{i}"]
        out[f"attn{i}"] = (q @ k.transpose(-1, -2) * (D // HEADS) ** -0.5).softmax(-1)
    for hook in hooks:
        hook.remove()
    return {f"{name}.{size}": t for name, t in out.items()}


def main():
    vit = model()
    torch.save(dino_state_dict(vit), HERE / "weights.pth")
    torch.save(dino_state_dict(vit), HERE / "weights_legacy.pth", _use_new_zipfile_serialization=False)
    vit.save_pretrained(HERE / "hf")
    out = {}
    double = vit.double()
    for i, (b, h, w) in enumerate([(1, 64, 48), (2, G * PATCH, G * PATCH)]):
        image = torch.randn(b, 3, h, w, generator=torch.Generator().manual_seed(i))
        out[f"img.{h}x{w}"] = image
        out |= outputs(double, image.double(), f"{h}x{w}")
    save_file({n: t.float().contiguous().clone() for n, t in out.items()}, HERE / "expected.safetensors")


if __name__ == "__main__":
    main()
