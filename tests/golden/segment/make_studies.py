"""Golden numbers for crates/segment: correspondence maps, label co-occurrence, CIE L*a*b*.

Made with python 3.11, torch 2.15, scikit-learn 1.9, scikit-image 0.26, safetensors 0.8.
Run: python3 make_studies.py, or with --lab FILE where scikit-image has an environment of its own (it writes FILE, a .npy, if torch is missing).

studies.safetensors inputs: features [t, d] of a grid of 5 x 6, other [t', d] of 4 x 7, queries [q, 2] (x, y), image [h, w, 3] (whole numbers), labels
                    [h, w] of classes 0 to 4 (4 stands for none), points1, points2 [n, 2], scores, matches [m]; rgb [r, 3].
                    outputs: maps [q, t'], picture [h, w, 3] (maps over the grey image, not rounded), cosine [n, n] of features at the points,
                    whole [n, n] (inner products of one-hot labels read bilinearly, in double precision, whole or not), kernel [n, n]
                    (of the image's pixels / 255 at the points), average_precision [1], precision, recall [p] (all thresholds,
                    highest first), lab [r, 3].
"""

import sys

import numpy

RGB = numpy.array([[r, g, b] for r in (0, 3, 77, 200, 255) for g in (0, 10, 128, 255) for b in (0, 50, 190, 255)])

try:
    import torch
except ImportError:
    from skimage.color import rgb2lab

    numpy.save(sys.argv[sys.argv.index("--lab") + 1], rgb2lab(RGB[None] / 255.0)[0])
    sys.exit()

import torch.nn.functional as F
from safetensors.torch import save_file
from sklearn.metrics import average_precision_score, precision_recall_curve


def maps_of(tokens, grid):
    return tokens.T.reshape(1, -1, *grid)


def read(maps, points):
    """[1, c, h, w] at [n, 2]: [n, c]."""
    sampled = F.grid_sample(maps, points[None, :, None].to(maps.dtype), padding_mode="border", align_corners=True)
    return sampled[0, :, :, 0].T


def main():
    torch.manual_seed(0)
    double = torch.float64
    features, other = torch.randn(30, 6) + 0.4, torch.randn(28, 6) + 0.4
    queries = torch.tensor([[-0.1, 0.0], [0.5, 0.8], [-0.7, -0.7], [1.0, -1.0]])
    image = torch.randint(0, 256, (12, 15, 3))
    labels = torch.randint(0, 5, (4, 5)).repeat_interleave(3, 0).repeat_interleave(3, 1)
    points1, points2 = torch.rand(60, 2) * 2 - 1, torch.rand(60, 2) * 2 - 1

    query = F.normalize(read(maps_of(features.to(double), (5, 6)), queries), dim=1)
    attention = query @ F.normalize(other.to(double), dim=1).T
    maps = (attention - attention.mean(1, keepdim=True)).clamp(0)
    picture = 0.8 * (image.to(double) @ torch.tensor([0.2989, 0.5870, 0.1140], dtype=double))[..., None].expand(12, 15, 3)
    large = F.interpolate(maps.reshape(1, 4, 4, 7), (12, 15), mode="bilinear", align_corners=True)[0]
    for heat, colour in zip(large, ([255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0])):
        alpha = 0.5 * (heat / heat.max())[..., None]
        picture = (1 - alpha) * picture + alpha * torch.tensor(colour, dtype=double)

    at = lambda points: F.normalize(read(maps_of(features.to(double), (5, 6)), points), dim=1)
    cosine = at(points1) @ at(points2).T
    one_hot = F.one_hot(labels, 5).permute(2, 0, 1)[None].to(double)
    products = read(one_hot, points1) @ read(one_hot, points2).T
    whole = (products + 1e-9).long()

    colours = (image.permute(2, 0, 1)[None] / 255).to(double)
    colour1, colour2 = read(colours, points1), read(colours, points2)
    apart = (points1[:, None] - points2[None]).to(double).square().sum(-1)
    unlike = (colour1[:, None] - colour2[None]).square().sum(-1)
    e = lambda x: torch.tensor(x, dtype=double).exp()
    kernel = 10 * torch.exp(-apart / (2 * e(0.5)) - unlike / (2 * e(0.15))) + 3 * torch.exp(-apart / (2 * e(0.05))) + 0.3

    scores = (torch.randint(0, 90, (2000,)) / 45 - 1).float()
    matches = torch.rand(2000) < 0.2 + 0.3 * (scores + 1)
    precision, recall, _ = precision_recall_curve(matches.numpy(), scores.numpy())
    average = average_precision_score(matches.numpy(), scores.numpy())

    tensors = dict(features=features, other=other, queries=queries, image=image, labels=labels, points1=points1, points2=points2)
    tensors |= dict(maps=maps, picture=picture, cosine=cosine, whole=whole, kernel=kernel, scores=scores, matches=matches.long())
    # scikit-learn lists thresholds upwards and ends with an artificial point.
    tensors |= dict(precision=torch.tensor(precision[:-1][::-1].copy()), recall=torch.tensor(recall[:-1][::-1].copy()))
    tensors |= dict(average_precision=torch.tensor([average], dtype=double), rgb=torch.tensor(RGB))
    tensors["lab"] = torch.tensor(numpy.load(sys.argv[sys.argv.index("--lab") + 1]))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, "studies.safetensors")


main()
