"""Golden numbers for crates/backbone: small DINOv2 and DINOv3 models, computed in double precision.

Made with python 3.11, torch 2.15.0 (CPU), transformers 5.23.0, timm 1.0.31, safetensors 0.8.0. Run: python3 dinov2.py

The networks are transformers' (d 8 or 24, 2 blocks, 2 heads; DINOv2 with patch 14 and a 3 x 3 table, with and without 2
registers; DINOv3 with patch 4 and 2 registers). Their random weights, layer scales and tables are large enough that every path
matters. What the original implementation does otherwise is put in place of theirs from its definition: the position table
of a model without registers, F.interpolate(scale_factor = ((h + .1) / G, (w + .1) / G), mode="bicubic"), and the periods of
DINOv3's rotations, which the original stores in bfloat16. timm's models are only asserted to agree.

dinov2/images.safetensors, dinov3/images.safetensors      img.HxW
dinov2/, dinov3/ CASE.expected.safetensors                computed from them and rounded to float32: tokens.HxW [b, 1 + t, d],
                                                          all.HxW [depth, b, n, d], q0, k1, v1.HxW [b, heads, 1 + t, hd] of
                                                          blocks 0 and 1 (what the projections give) and attnI.HxW
                                                          [b, heads, n, n] of block I
dinov2/ plain.pth, reg.pth                                the original's names, with mask_token
        plain_hf/, reg_hf/                                Hugging Face's, as save_pretrained writes them
        reg_timm.pth                                      timm's: no entry for the class token in the table
dinov3/ original.pth                                      the original's names: periods, masks of the biases, and biases of
                                                          keys that the masks remove
        hf/, timm.pth                                     Hugging Face's and timm's: no periods, no biases of keys
All but plain_hf (another resampling) and original (other periods) of a family with as many registers share one CASE.
"""

import math
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from transformers import (Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel, DINOv3ViTConfig,
                          DINOv3ViTModel)

HERE = Path(__file__).parent
DEPTH, HEADS, REGISTERS = 2, 2, 2
COMMON = dict(num_hidden_layers=DEPTH, num_attention_heads=HEADS, hidden_act="gelu", attn_implementation="eager")
V2 = dict(hidden_size=8, mlp_ratio=2, patch_size=14, image_size=42, **COMMON)
V3 = dict(hidden_size=24, intermediate_size=36, patch_size=4, image_size=12, num_register_tokens=REGISTERS, **COMMON)
# Its own grid, wider and smaller, larger and higher; grids of all kinds.
SIZES = {"dinov2": [(1, 42, 42), (1, 28, 70), (1, 70, 42), (2, 14, 28)], "dinov3": [(2, 12, 12), (1, 12, 24), (1, 8, 4)]}


def fill(model, seed):
    """Weights that are large enough that every path matters."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        fan_in = p[0].numel() if p.ndim in (2, 4) and "token" not in name else 4
        gain = 2.0 if "q_proj.weight" in name or "k_proj.weight" in name else 1.0
        offset = 1.0 if "norm" in name and name.endswith("weight") else 0.7 if "lambda1" in name else 0.0
        p.data = torch.randn(p.shape, generator=generator) * gain * fan_in ** -0.5 + offset
    return model.eval()


def layers_of(model):
    return model.encoder.layer if hasattr(model, "encoder") else model.model.layer


def original_state_dict(model, registers):
    """The weights under the original's names."""
    s = {n.replace("encoder.", "").replace("model.", ""): p.detach().clone() for n, p in model.named_parameters()}
    out = {"cls_token": s["embeddings.cls_token"], "mask_token": s["embeddings.mask_token"].reshape(1, -1)}
    if registers:
        out[registers] = s["embeddings.register_tokens"]
    if "embeddings.position_embeddings" in s:
        out["pos_embed"] = s["embeddings.position_embeddings"]
    conv = "embeddings.patch_embeddings." + ("" if "embeddings.patch_embeddings.weight" in s else "projection.")
    norm = "norm" if "norm.weight" in s else "layernorm"
    first, second = ("up_proj", "down_proj") if "layer.0.mlp.up_proj.weight" in s else ("fc1", "fc2")
    for i in range(DEPTH):
        old, new = f"layer.{i}", f"blocks.{i}"
        out[f"{new}.ls1.gamma"] = s[f"{old}.layer_scale1.lambda1"]
        out[f"{new}.ls2.gamma"] = s[f"{old}.layer_scale2.lambda1"]
        for end in ("weight", "bias"):
            qkv = [s.get(f"{old}.attention.{x}_proj.{end}") for x in "qkv"]
            out[f"{new}.attn.qkv.{end}"] = torch.cat([torch.zeros_like(qkv[0]) if x is None else x for x in qkv])
            out[f"{new}.attn.proj.{end}"] = s[f"{old}.attention.o_proj.{end}"]
            out[f"{new}.mlp.fc1.{end}"] = s[f"{old}.mlp.{first}.{end}"]
            out[f"{new}.mlp.fc2.{end}"] = s[f"{old}.mlp.{second}.{end}"]
            for n in ("norm1", "norm2"):
                out[f"{new}.{n}.{end}"] = s[f"{old}.{n}.{end}"]
    for end in ("weight", "bias"):
        out[f"patch_embed.proj.{end}"] = s[conv + end]
        out[f"norm.{end}"] = s[f"{norm}.{end}"]
    return out


def original_positions(model, _embeddings, height, width):
    """The original's table of a model without registers: the scale itself is given, a tenth of a patch too large."""
    table, patch = model.embeddings.position_embeddings, model.config.patch_size
    side = math.isqrt(table.shape[1] - 1)
    h, w = height // patch, width // patch
    if (h, w) == (side, side):
        return table
    grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, scale_factor=((h + 0.1) / side, (w + 0.1) / side), mode="bicubic")
    assert grid.shape[2:] == (h, w)
    return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], 1)


@torch.no_grad()
def outputs(model, image, size):
    """Everything that is compared, for double-precision images [b, 3, h, w]."""
    b, patch = len(image), model.config.patch_size
    t = image.shape[2] // patch * (image.shape[3] // patch)
    kept, hooks = {}, []
    norm = model.layernorm if hasattr(model, "layernorm") else model.norm
    features = lambda y: torch.cat([y[:, :1], y[:, -t:]], 1)
    for i, layer in enumerate(layers_of(model)):
        for x in ("q", "kv")[i]:
            hooks.append(getattr(layer.attention, f"{x}_proj").register_forward_hook(
                lambda _m, _i, y, key=f"{x}{i}": kept.__setitem__(key, features(y).reshape(b, 1 + t, HEADS, -1).transpose(1, 2))))
        hooks.append(layer.attention.register_forward_hook(lambda _m, _i, y, key=f"attn{i}": kept.__setitem__(key, y[1])))
        hooks.append(layer.register_forward_hook(lambda _m, _i, y, key=f"layer{i}": kept.__setitem__(key, norm(y))))
    last = model(image).last_hidden_state
    for hook in hooks:
        hook.remove()
    every = [kept.pop(f"layer{i}") for i in range(DEPTH)]
    assert torch.equal(every[-1], last)
    out = {"tokens": features(last), "all": torch.stack(every), **kept}
    return {f"{name}.{size}": y for name, y in out.items()}


def expect(model, images, path):
    out = {}
    for name, image in images.items():
        out |= outputs(model, image.double(), name.removeprefix("img."))
    save_file({n: y.float().contiguous().clone() for n, y in out.items()}, path)
    return out


@torch.no_grad()
def assert_agrees(timm_model, images, out):
    for name, image in images.items():
        tokens = timm_model.double().forward_features(image.double())
        reference = out[name.replace("img.", "all.")][-1]
        off = (tokens - reference).abs().max() / reference.abs().max()
        print(f"timm {name}: {off:.1e}")
        assert off < 1e-5


def dinov2(folder, images):
    plain = fill(Dinov2Model(Dinov2Config(**V2)), 1)
    torch.save(original_state_dict(plain, None), folder / "plain.pth")
    plain.save_pretrained(folder / "plain_hf")
    plain.double()
    expect(plain, images, folder / "plain_hf.expected.safetensors")
    plain.embeddings.interpolate_pos_encoding = partial(original_positions, plain)
    expect(plain, images, folder / "plain.expected.safetensors")

    reg = fill(Dinov2WithRegistersModel(Dinov2WithRegistersConfig(num_register_tokens=REGISTERS, **V2)), 2)
    state = original_state_dict(reg, "register_tokens")
    torch.save(state, folder / "reg.pth")
    reg.save_pretrained(folder / "reg_hf")
    out = expect(reg.double(), images, folder / "reg.expected.safetensors")

    state.pop("mask_token")
    state["reg_token"] = state.pop("register_tokens")
    state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
    state["pos_embed"] = state["pos_embed"][:, 1:].clone()
    torch.save(state, folder / "reg_timm.pth")
    timm = VisionTransformer(img_size=42, patch_size=14, embed_dim=8, depth=DEPTH, num_heads=HEADS, mlp_ratio=2, init_values=1.0,
                             reg_tokens=REGISTERS, no_embed_class=True, num_classes=0, dynamic_img_size=True).eval()
    timm.load_state_dict(state)
    assert_agrees(timm, images, out)


def dinov3(folder, images):
    model = fill(DINOv3ViTModel(DINOv3ViTConfig(**V3)), 3)
    model.save_pretrained(folder / "hf")
    state = original_state_dict(model, "storage_tokens")
    d = state["cls_token"].shape[-1]
    out = expect(model.double(), images, folder / "hf.expected.safetensors")

    timm_state = {n.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2").replace("storage_tokens", "reg_token"): y
                  for n, y in state.items() if n != "mask_token"}
    for i in range(DEPTH):
        q, _, v = timm_state.pop(f"blocks.{i}.attn.qkv.bias").chunk(3)
        timm_state |= {f"blocks.{i}.attn.q_bias": q.clone(), f"blocks.{i}.attn.v_bias": v.clone()}
    torch.save(timm_state, folder / "timm.pth")
    timm = Eva(img_size=12, patch_size=4, embed_dim=d, depth=DEPTH, num_heads=HEADS, mlp_ratio=1.5, qkv_bias=True, init_values=1.0,
               rope_type="dinov3", rope_temperature=100, rope_rotate_half=True, use_rot_pos_emb=True, use_abs_pos_emb=False,
               num_reg_tokens=REGISTERS, use_fc_norm=False, norm_layer=partial(torch.nn.LayerNorm, eps=1e-5), num_classes=0,
               dynamic_img_size=True).eval()
    timm.load_state_dict(timm_state)
    assert_agrees(timm, images, out)

    # Periods as the original has them: base ** (2 k / (hd / 2)), here rounded as the published files have them.
    hd = d // HEADS
    periods = (100.0 ** (2 * torch.arange(hd // 4) / (hd // 2))).bfloat16().float()
    state["rope_embed.periods"] = periods
    for i in range(DEPTH):
        bias = state[f"blocks.{i}.attn.qkv.bias"]
        state[f"blocks.{i}.attn.qkv.bias"] = torch.where(torch.arange(3 * d) // d == 1, 5.0 - i, bias)
        state[f"blocks.{i}.attn.qkv.bias_mask"] = (torch.arange(3 * d) // d != 1).float()
    torch.save(state, folder / "original.pth")
    model.rope_embeddings.inv_freq = 1 / periods.double()
    other = expect(model, images, folder / "original.expected.safetensors")
    print("rounded periods change tokens by", max((other[n] - out[n]).abs().max() for n in out if n.startswith("tokens")).item())


def main():
    for make in (dinov2, dinov3):
        folder = HERE / make.__name__
        folder.mkdir(exist_ok=True)
        images = {f"img.{h}x{w}": torch.randn(b, 3, h, w, generator=torch.Generator().manual_seed(i))
                  for i, (b, h, w) in enumerate(SIZES[make.__name__])}
        save_file(images, folder / "images.safetensors")
        make(folder, images)


if __name__ == "__main__":
    main()
