"""Golden numbers for crates/segment: STEGO's losses and their gradients, by automatic differentiation in double precision.

Made with python 3.11, torch 2.15, safetensors 0.8. Run: python3 make_stego.py

stego.safetensors   inputs: features, features_pos [b, t, d], codes, codes_pos [b, t, k], points1, points2 [b, n, 2] (x, y),
                    negatives [r, b], images [b, 3, h, w], pixels [n, 2], decoder [d (k + 1)] (weights, then biases), and head
                    [parameters]: linear branch, hidden layer, output layer, weights before biases.
                    outputs: VARIANT.losses (intra, inter, negative, total), VARIANT.grad_codes, .grad_codes_pos for pPzZsS, and
                    `ladder` with prefixes 2, 3, 5; crf.loss, .grad; rec.loss, .grad, .grad_decoder; head.code, .grad
                    (of the sum of code times codes). Weights and shifts are the defaults.
"""

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

B, D, K, GH, GW, N, R = 3, 8, 5, 4, 5, 9, 2
WEIGHTS, SHIFTS = (0.67, 0.25, 0.63), (0.18, 0.12, 0.46)


def rows(tokens, points):
    """[b, t, c] read at [b, n, 2]."""
    maps = tokens.transpose(1, 2).reshape(len(tokens), -1, GH, GW)
    return F.grid_sample(maps, points[:, :, None], padding_mode="border", align_corners=True)[..., 0].transpose(1, 2)


def unit(x):
    return F.normalize(x, dim=-1, eps=1e-10)


def term(f, g, c, e, shift, pointwise, low, high):
    fd = unit(f) @ unit(g).transpose(1, 2)
    if pointwise:
        mean = fd.mean()
        fd = fd - fd.mean(2, keepdim=True)
        fd = fd - fd.mean() + mean
    return -(unit(c) @ unit(e).transpose(1, 2)).clamp(low, high) * (fd - shift)


def losses(x, codes, codes_pos, pointwise, low, high):
    rule = (pointwise, low, high)
    f, g = rows(x["features"], x["points1"]), rows(x["features_pos"], x["points2"])
    c, e = rows(codes, x["points1"]), rows(codes_pos, x["points2"])
    negative = [
        term(f, rows(x["features"][order], x["points2"]), c, rows(codes[order], x["points2"]), SHIFTS[2], *rule)
        for order in x["negatives"].long()
    ]
    means = (term(f, f, c, c, SHIFTS[0], *rule).mean(), term(f, g, c, e, SHIFTS[1], *rule).mean(), torch.stack(negative).mean())
    return torch.stack([*means, sum(w * m for w, m in zip(WEIGHTS, means))])


def crf(x, codes):
    resized = lambda maps: F.interpolate(maps, (7, 7), mode="bilinear", align_corners=False)
    at = lambda maps: maps[:, :, x["pixels"][:, 0], x["pixels"][:, 1]].transpose(1, 2)
    colour = at(resized(x["images"]))
    code = unit(at(resized(codes.transpose(1, 2).reshape(B, K, GH, GW))))
    place = x["pixels"].double()
    apart = (place[:, None] - place[None]).square().sum(-1)
    unlike = (colour[:, :, None] - colour[:, None]).square().sum(-1)
    kernel = 10 * torch.exp(-apart / (2 * 0.5) - unlike / (2 * 0.15)) + 3 * torch.exp(-apart / (2 * 0.05))
    return -(kernel * (code @ code.transpose(1, 2))).mean()


def head(parameters, x):
    layers, start = [], 0
    for outputs in (K, D, K):
        weight = parameters[start : start + outputs * D].reshape(outputs, D)
        start += outputs * D
        layers.append((weight, parameters[start : start + outputs]))
        start += outputs
    linear, hidden, out = layers
    return F.linear(x, *linear) + F.linear(F.linear(x, *hidden).relu(), *out)


def main():
    torch.manual_seed(0)
    x = {
        "features": torch.randn(B, GH * GW, D),
        "features_pos": torch.randn(B, GH * GW, D),
        "codes": torch.randn(B, GH * GW, K),
        "codes_pos": torch.randn(B, GH * GW, K),
        "points1": torch.rand(B, N, 2) * 2.2 - 1.1,
        "points2": torch.rand(B, N, 2) * 2.2 - 1.1,
        "images": torch.randn(B, 3, 10, 13) * 0.3,
        "decoder": torch.randn(D * (K + 1)) * 0.4,
        "head": torch.randn(2 * K * (D + 1) + D * (D + 1)) * 0.4,
    }
    x = {name: tensor.double() for name, tensor in {name: t.float() for name, t in x.items()}.items()}
    x["negatives"] = torch.tensor([[1, 2, 0], [2, 0, 0]])
    x["pixels"] = torch.randint(0, 7, (40, 2))
    out = {}

    def slopes(name, value, leaves):
        grads = torch.autograd.grad(value, [leaf for _, leaf in leaves])
        out.update({f"{name}.{leaf}": grad for (leaf, _), grad in zip(leaves, grads)})

    codes, codes_pos = (x[name].clone().requires_grad_() for name in ("codes", "codes_pos"))
    leaves = [("grad_codes", codes), ("grad_codes_pos", codes_pos)]
    for bits in range(8):
        p, z, s = bits >> 2 & 1, bits >> 1 & 1, bits & 1
        found = losses(x, codes, codes_pos, bool(p), 0.0 if z else -9999.0, 0.8 if s else 9999.0)
        out[f"p{p}z{z}s{s}.losses"] = found.detach()
        slopes(f"p{p}z{z}s{s}", found[3], leaves)
    found = sum(losses(x, codes[..., :k], codes_pos[..., :k], True, 0.0, 9999.0) for k in (2, 3, 5))
    out["ladder.losses"] = found.detach()
    slopes("ladder", found[3], leaves)
    value = crf(x, codes)
    out["crf.loss"] = value.detach()
    slopes("crf", value, [("grad", codes)])
    decoder = x["decoder"].clone().requires_grad_()
    decoded = F.linear(codes[0], decoder[: D * K].reshape(D, K), decoder[D * K :])
    value = -(unit(decoded) * unit(x["features"][0])).sum(-1).mean()
    out["rec.loss"] = value.detach()
    slopes("rec", value, [("grad", codes), ("grad_decoder", decoder)])
    out["rec.grad"] = out["rec.grad"][0]
    parameters = x["head"].clone().requires_grad_()
    code = head(parameters, x["features"][0])
    out["head.code"] = code.detach()
    slopes("head", (code * x["codes"][0]).sum(), [("grad", parameters)])
    inputs = {name: tensor if tensor.dtype == torch.int64 else tensor.float() for name, tensor in x.items()}
    save_file({name: t.contiguous() for name, t in (inputs | out).items()}, "stego.safetensors")


if __name__ == "__main__":
    main()
