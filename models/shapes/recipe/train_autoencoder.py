"""Trains the autoencoder that both models share, on whole images of both sizes (because its group norms use their statistics).

Three ways to call it:

    train_autoencoder.py --out VAE                             from scratch; sets the scaling factor at the end
    train_autoencoder.py --out VAE --start OLD                 continues; a distillation term keeps the latents close to
                                                               OLD's, so that U-Nets trained on OLD only have to adapt
    train_autoencoder.py --out VAE --start OLD --decoder-only  freezes the encoder, so that existing U-Nets stay valid

Stars are the first to suffer at 128 pixels (their arms are thinner than a latent cell), so `--stars` makes them more frequent.
"""
import argparse
import copy
import random

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from common import LrSchedule, Mean, Report
from world import _sdf, render, sample_scene

CONFIG = dict(in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
              block_out_channels=(16, 32, 64, 64), layers_per_block=1, latent_channels=4, norm_num_groups=8, sample_size=256, scaling_factor=1.0)


def weights(objs, size):
    """Returns the weight of each pixel, (1, size, size): 1 on the background, more on objects and their edges, most on stars."""
    ys, xs = torch.meshgrid(*[(torch.arange(size) + 0.5) / size] * 2, indexing="ij")
    out = torch.ones(size, size)
    for _, shape, (x0, y0, x1, y1) in objs:
        rx, ry = (x1 - x0) / 2, (y1 - y0) / 2
        d = _sdf(shape, (xs - (x0 + x1) / 2) / rx, (ys - (y0 + y1) / 2) / ry) * min(rx, ry)
        out = torch.maximum(out, 1 + torch.sigmoid((0.02 - d) / 0.01) * (9 if shape == "star" else 4))
    return out[None]


def draw(rng, size, count, stars):
    """Renders new images and returns them with their weights."""
    pictures, maps = [], []
    for _ in range(count):
        ground, objs = sample_scene(rng, sizes=(0.2, 0.45))
        objs = [(color, "star" if rng.random() < stars else shape, box) for color, shape, box in objs]
        pictures.append(render(ground, objs, size, rng.randrange(1 << 40)))
        maps.append(weights(objs, size))
    return torch.stack(pictures), torch.stack(maps)


def loss_of(y, x, w):
    """Returns the weighted error of values, of chroma, and of edges."""
    d = y - x
    chroma = d - d.mean(1, keepdim=True)
    edges = (d[..., 1:] - d[..., :-1]).abs().mul(w[..., 1:]).mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mul(w[..., 1:, :]).mean()
    return (w * (d.abs() + d.pow(2) + chroma.abs())).mean() + 0.4 * edges


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", required=True)
    p.add_argument("--start", help="autoencoder to continue from")
    p.add_argument("--decoder-only", action="store_true")
    p.add_argument("--hold", type=float, default=0.05, help="weight of the distance to the latents of --start")
    p.add_argument("--stars", type=float, default=0.45, help="share of objects that become stars")
    p.add_argument("--steps", type=int, default=4000)
    p.add_argument("--minutes", type=float, default=1e9, help="wall-clock minutes after which the training ends")
    p.add_argument("--lr", type=float, default=8e-4)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    if a.decoder_only and not a.start:
        p.error("--decoder-only needs --start")
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    rng = random.Random(a.seed)
    vae = AutoencoderKL.from_pretrained(a.start, torch_dtype=torch.float32) if a.start else AutoencoderKL(**CONFIG)
    old = copy.deepcopy(vae).requires_grad_(False) if a.start and not a.decoder_only else None
    if a.decoder_only:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    params = [q for q in vae.parameters() if q.requires_grad]
    optimizer, mean, report = torch.optim.AdamW(params, a.lr, weight_decay=1e-4, betas=(0.9, 0.98)), Mean(params), Report()
    schedule = LrSchedule(optimizer, a.lr, a.steps, a.minutes)
    for done in schedule:
        size, count = (256, 2) if schedule.step % 3 == 2 else (128, 8)
        x, w = draw(rng, size, count, a.stars)
        z = vae.encode(x).latent_dist.mean
        y = vae.decode(z + torch.randn_like(z) * 0.05 * rng.random()).sample
        loss = loss_of(y, x, w)
        if old is not None:
            loss = loss + a.hold * ((z - old.encode(x).latent_dist.mean) * old.config.scaling_factor).pow(2).mean()
        elif not a.start:
            loss = loss + 1e-3 * (z.pow(2).mean() + z.mean((2, 3)).pow(2).mean())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        mean.update()
        report(done, loss=loss, mse=F.mse_loss(y, x))
        if report.steps % 200 == 0:
            mean.swap()
            vae.save_pretrained(a.out)
            mean.swap()
    mean.swap()
    if not a.start:
        with torch.no_grad():
            z = torch.cat([vae.encode(draw(rng, 128, 50, 0.25)[0]).latent_dist.mean for _ in range(10)])
        vae.register_to_config(scaling_factor=float(1 / z.std()))
    vae.save_pretrained(a.out)


if __name__ == "__main__":
    main()
