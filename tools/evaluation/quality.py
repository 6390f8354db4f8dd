"""Image quality: the distance of images to the renderer's own, as the sliced Wasserstein distance of patches at several scales.

The measure needs no trained network. It follows Karras et al. 2018, "Progressive Growing of GANs", section 5: 7 × 7 patches
of each level of a Laplacian pyramid are projected on random directions, and the sorted projections of the two sets are
compared. There are two differences. Patches are normalised by the mean and standard deviation of each channel of the
*renderer's* images only; the published code normalises each set by its own, and therefore sees neither a change of colour
nor one of contrast. And the number of patches is the same for every set, however many images it has.

Values are 1000 times the distance. Lower is better, and the renderer's own images set the floor. The module itself needs
numpy only.

usage: quality.py      prints the values of images that are degraded in known ways (needs torch for renderer and autoencoder)

"""
import numpy as np

SIZE, LEVELS = 256, 4  # 256, 128, 64, 32
PATCH, PATCHES, DIRECTIONS = 7, 16384, 256
KERNEL = np.array([1, 4, 6, 4, 1], np.float32) / 16


def blur(x, axis, gain=1.0):
    """Applies the binomial kernel along one axis, with a reflected border."""
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
    """Returns the Laplacian levels of images (n, 3, SIZE, SIZE), finest first; the last level is the low-pass residual."""
    out = []
    for _ in range(LEVELS - 1):
        smaller = down(x)
        out.append(x - up(smaller))
        x = smaller
    return out + [x]


def patches(pictures, seed):
    """Returns random patches of each level, (PATCHES, 3, 7, 7), distributed evenly over the images."""
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
    """The distance to a set of reference images (n, 3, 256, 256) in [-1, 1]."""

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
        """Returns the distance at each level, finest first."""
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
