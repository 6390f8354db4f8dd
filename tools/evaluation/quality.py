"""How far pictures are from the renderer's own in look: the sliced Wasserstein distance of patches at several scales.

It needs no trained network. As published (Karras et al. 2018, "Progressive Growing of GANs", section 5): 7 × 7 patches of
each level of a Laplacian pyramid, projected on random directions, the two sets' projections sorted and compared. Two
things are done otherwise. Patches are normalised by the mean and spread of each channel of the *renderer's* pictures alone,
where the published code normalises each set by its own, and so sees neither a change of colour nor one of contrast. And the
number of patches is the same for every set, however many pictures it has.

Figures are a thousand times the distance; lower is better; the floor is what the renderer's own pictures get. Numpy alone.

usage: quality.py      what it makes of pictures that are spoilt in known ways (needs torch for the renderer and autoencoder)
"""
import numpy as np

SIZE, LEVELS = 256, 4  # 256, 128, 64, 32
PATCH, PATCHES, DIRECTIONS = 7, 16384, 256
KERNEL = np.array([1, 4, 6, 4, 1], np.float32) / 16


def blur(x, axis, gain=1.0):
    """The binomial kernel along one axis, with the border reflected."""
    pad = [(0, 0)] * x.ndim
    pad[axis] = (2, 2)
    padded, n = np.pad(x, pad, mode="reflect"), x.shape[axis]
    take = lambda k: padded[tuple(slice(k, k + n) if a == axis % x.ndim else slice(None) for a in range(x.ndim))]
    return sum(gain * w * take(k) for k, w in enumerate(KERNEL))


def down(x):
    return blur(blur(x, 2), 3)[:, :, ::2, ::2]


def up(x):
    wide = np.zeros((*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3]), np.float32)
    wide[:, :, ::2, ::2] = x
    return blur(blur(wide, 2, 2.0), 3, 2.0)


def pyramid(x):
    """The Laplacian levels of pictures (n, 3, SIZE, SIZE), finest first; the last holds what remains."""
    out = []
    for _ in range(LEVELS - 1):
        smaller = down(x)
        out.append(x - up(smaller))
        x = smaller
    return out + [x]


def patches(pictures, seed):
    """A level's random patches each, (PATCHES, 3, 7, 7), taken from the pictures in turn."""
    rng = np.random.default_rng(seed)
    levels = [[] for _ in range(LEVELS)]
    for i, picture in enumerate(pictures):
        count = PATCHES // len(pictures) + (i < PATCHES % len(pictures))
        for kept, level in zip(levels, pyramid(np.asarray(picture, np.float32)[None])):
            views = np.lib.stride_tricks.sliding_window_view(level[0], (PATCH, PATCH), axis=(1, 2))
            y, x = rng.integers(views.shape[1], size=count), rng.integers(views.shape[2], size=count)
            kept.append(views[:, y, x].transpose(1, 0, 2, 3).copy())
    return [np.concatenate(kept) for kept in levels]


class Quality:
    """The distance to a set of reference pictures (n, 3, 256, 256) in [-1, 1]."""

    def __init__(self, reference):
        rng = np.random.default_rng(1)
        self.levels = []
        for p in patches(reference, 2):
            mean, spread = p.mean((0, 2, 3), keepdims=True), p.std((0, 2, 3), keepdims=True)
            directions = rng.standard_normal((3 * PATCH**2, DIRECTIONS)).astype(np.float32)
            level = (mean, spread, directions / np.linalg.norm(directions, axis=0))
            self.levels.append((level, self.project(p, level)))

    @staticmethod
    def project(p, level):
        mean, spread, directions = level
        return np.sort(((p - mean) / spread).reshape(len(p), -1) @ directions, axis=0)

    def __call__(self, pictures):
        """The distance at each level, finest first."""
        found = patches(pictures, 3)
        return [1e3 * float(np.abs(self.project(p, level) - known).mean()) for p, (level, known) in zip(found, self.levels)]


def main():
    import random
    import sys
    from pathlib import Path

    import torch
    from torch.nn.functional import interpolate

    root = Path(__file__).resolve().parents[2]
    sys.path.insert(0, str(root / "models/shapes/recipe"))
    from diffusers import AutoencoderKL
    from reference import decode, encode
    from world import render, sample_scene

    def scenes(seed, count, size=SIZE):
        rng = random.Random(seed)
        return [render(*sample_scene(rng), size, 1000 * seed + i) for i in range(count)]

    measure, real, rng = Quality([x.numpy() for x in scenes(5, 200)]), torch.stack(scenes(6, 100)), torch.Generator().manual_seed(1)
    vae = AutoencoderKL.from_pretrained(root / "models/shapes/xl/vae", torch_dtype=torch.float32).eval()
    resized = lambda x, size: interpolate(x, size=(size, size), mode="bicubic", antialias=True).clamp(-1, 1)
    noise = torch.randn(real.shape, generator=rng)
    red = torch.tensor([1.0, 0, 0])[:, None, None]
    with torch.inference_mode():
        through = torch.cat([decode(vae, encode(vae, x[None])) for x in real])
    known = {
        "the renderer's own, other scenes": real,
        "the renderer's own, half of the scenes": real[:50],
        "autoencoder": through,
        **{f"noise of {s}": (real + s * noise).clamp(-1, 1) for s in (0.02, 0.05, 0.1, 0.2)},
        **{f"by way of {s} pixels": resized(resized(real, s), SIZE) for s in (192, 128, 64, 32)},
        **{f"redder by {s}": (real + s * red).clamp(-1, 1) for s in (0.05, 0.1, 0.2, 0.4)},
        **{f"contrast of {s}": real * s for s in (0.95, 0.9, 0.8, 0.6)},
        "rendered at 128, enlarged": resized(torch.stack(scenes(6, 100, 128)), SIZE),
    }
    for name, pictures in known.items():
        figures = measure([x.numpy() for x in pictures])
        print(f"{name:40} {np.mean(figures):7.1f}   at 256, 128, 64, 32: " + " ".join(f"{f:6.1f}" for f in figures), flush=True)


if __name__ == "__main__":
    main()
