"""LSReGen and other methods on the shapes world with diffusers' own networks: the reference for the Rust engine.

Each method takes a list of layouts and returns images (n, 3, H, W) in [-1, 1]. Everything is batched over the layouts
except the noise, which each layout draws from its own `torch.Generator().manual_seed(seed)`, so that an image depends only
on its own seed.

usage: reference.py --models models/shapes --out DIR [--count 100] [--world-seed 21] [--layouts FILE] [--methods ...]
                    [--cfg-small 3] [--cfg-large 4] [--w .5] [--fraction .1]
Writes DIR/layouts.json and DIR/<method>/<id>.png; score.py scores them.
"""
import argparse
import json
import random
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMInverseScheduler, DDIMScheduler, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from world import caption, sample_scene

SLOTS = 30
STEPS = 20
SMALL, LARGE = 128, 256


@dataclass
class Settings:
    """The settings of a run, with their defaults."""

    cfg_small: float = 3.0  # scale of classifier-free guidance of GLIGEN
    cfg_large: float = 4.0  # and of the large model
    w: float = 0.5  # w of LSReGen: how far a guided step moves the latents towards the layout
    fraction: float = 0.1  # guided share of the steps

    @staticmethod
    def options(parser):
        for f in fields(Settings):
            parser.add_argument("--" + f.name.replace("_", "-"), type=float, default=f.default)

    @staticmethod
    def of(args):
        return Settings(**{f.name: getattr(args, f.name) for f in fields(Settings)})


def layouts(count, world_seed):
    """Returns `count` random layouts, with the seeds of the small and of the large image."""
    rng = random.Random(world_seed)
    out = []
    for i in range(count):
        ground, objs = sample_scene(rng)
        boxes = [{"phrase": f"a {color} {shape}", "box": list(box)} for color, shape, box in objs]
        out.append({"id": i, "prompt": caption(ground, objs), "seed_small": 1000 + i, "seed_large": 2000 + i, "boxes": boxes})
    return out


class Models:
    """The networks of both model folders, in f32."""

    def __init__(self, root):
        root, f32 = Path(root), {"torch_dtype": torch.float32}
        small, large = root / "gligen", root / "xl"
        self.scheduler = small / "scheduler"
        self.tokenizer = CLIPTokenizer.from_pretrained(small / "tokenizer")
        self.text = CLIPTextModel.from_pretrained(small / "text_encoder", **f32).eval()
        self.unet = UNet2DConditionModel.from_pretrained(small / "unet", **f32).eval()
        self.vae = AutoencoderKL.from_pretrained(small / "vae", **f32).eval()
        self.xl_text = CLIPTextModel.from_pretrained(large / "text_encoder", **f32).eval()
        self.xl_text_2 = CLIPTextModelWithProjection.from_pretrained(large / "text_encoder_2", **f32).eval()
        self.xl_unet = UNet2DConditionModel.from_pretrained(large / "unet", **f32).eval()
        self.xl_vae = AutoencoderKL.from_pretrained(large / "vae", **f32).eval()

    def ids(self, texts):
        tok = self.tokenizer
        return tok(texts, padding="max_length", max_length=tok.model_max_length, truncation=True, return_tensors="pt").input_ids

    def schedule(self, kind=DDIMScheduler, steps=STEPS):
        s = kind.from_pretrained(self.scheduler)
        s.set_timesteps(steps)
        return s


def noise(seeds, size, draws=1):
    """Returns (draws, n, 4, size/8, size/8): consecutive draws from the generator of each seed."""
    out = []
    for seed in seeds:
        g = torch.Generator().manual_seed(seed)
        out.append(torch.cat([torch.randn(1, 4, size // 8, size // 8, generator=g) for _ in range(draws)]))
    return torch.stack(out, 1)


def guided(unet, z, t, cfg, **cond):
    """Returns the prediction under classifier-free guidance; `cond` holds the unconditional half first."""
    u, c = unet(torch.cat([z, z]), t, **cond).sample.chunk(2)
    return u + cfg * (c - u)


def decode(vae, z):
    return torch.cat([vae.decode(q[None] / vae.config.scaling_factor).sample.clamp(-1, 1) for q in z])


def encode(vae, x):
    return torch.cat([vae.encode(q[None]).latent_dist.mean for q in x]) * vae.config.scaling_factor


def upsample(x, size=LARGE):
    return torch.nn.functional.interpolate(x, size=(size, size), mode="bicubic", antialias=True).clamp(-1, 1)


def gligen(m, batch, cfg, size=SMALL):
    """Samples with GLIGEN, grounded at all steps; at LARGE it is the paper's "GLIGEN at large scale"."""
    n = len(batch)
    boxes, embeddings, masks = torch.zeros(2, n, SLOTS, 4), torch.zeros(2, n, SLOTS, 64), torch.zeros(2, n, SLOTS)
    for i, layout in enumerate(batch):
        phrases = m.text(m.ids([b["phrase"] for b in layout["boxes"]])).pooler_output
        for j, b in enumerate(layout["boxes"]):
            boxes[:, i, j], embeddings[:, i, j], masks[1, i, j] = torch.tensor(b["box"]), phrases[j], 1
    grounding = {"boxes": boxes.flatten(0, 1), "positive_embeddings": embeddings.flatten(0, 1), "masks": masks.flatten(0, 1)}
    h = m.text(m.ids([""] * n + [l["prompt"] for l in batch])).last_hidden_state
    z = noise([l["seed_small"] for l in batch], size)[0]
    s = m.schedule()
    for t in s.timesteps:
        e = guided(m.unet, z, t, cfg, encoder_hidden_states=h, cross_attention_kwargs={"gligen": grounding})
        z = s.step(e, t, z).prev_sample
    return decode(m.vae, z)


def xl_condition(m, texts, size=LARGE):
    ids = m.ids(texts)
    two = m.xl_text_2(ids, output_hidden_states=True)
    h = torch.cat([m.xl_text(ids, output_hidden_states=True).hidden_states[-2], two.hidden_states[-2]], -1)
    time_ids = torch.tensor([[size, size, 0, 0, size, size]]).float().repeat(len(texts), 1)
    return {"encoder_hidden_states": h, "added_cond_kwargs": {"text_embeds": two.text_embeds, "time_ids": time_ids}}


def invert(m, z, prompts):
    """Inverts the latents by DDIM under `prompts`, without guidance. Returns timestep -> latents."""
    s, cond, track = m.schedule(DDIMInverseScheduler), xl_condition(m, prompts), {}
    for t in s.timesteps:
        z = s.step(m.xl_unet(z, t, **cond).sample, t, z).prev_sample
        track[int(t)] = z
    return track


def xl(m, batch, cfg, reference=None, mode="ddim", w=1.0, fraction=0.0):
    """Samples with the large model. With `reference` images (n, 3, LARGE, LARGE), the first steps are guided towards them
    before the network is called: z <- (1 - w) z + w z_t, with z_t from DDIM inversion under the prompt or, in mode "noise",
    from noise. w = 1 with noise is img2img."""
    prompts = [l["prompt"] for l in batch]
    cond = xl_condition(m, [""] * len(batch) + prompts)
    z, eps = noise([l["seed_large"] for l in batch], LARGE, 2)
    s = m.schedule()
    if reference is not None:
        z0 = encode(m.xl_vae, reference)
        if mode == "ddim":
            track = invert(m, z0, prompts)
    for i, t in enumerate(s.timesteps):
        if reference is not None and i < max(1, round(fraction * STEPS)):
            a = s.alphas_cumprod[t]
            target = track[int(t)] if mode == "ddim" else a.sqrt() * z0 + (1 - a).sqrt() * eps
            z = (1 - w) * z + w * target
        z = s.step(guided(m.xl_unet, z, t, cfg, **cond), t, z).prev_sample
    return decode(m.xl_vae, z)


# Each takes the models, the layouts, a function that returns GLIGEN's small images of them, and the settings.
METHODS = {
    "gligen": lambda m, batch, small, s: small(),
    "gligen-large": lambda m, batch, small, s: gligen(m, batch, s.cfg_small, LARGE),
    "upsampled": lambda m, batch, small, s: upsample(small()),
    "xl": lambda m, batch, small, s: xl(m, batch, s.cfg_large),
    "img2img": lambda m, batch, small, s: xl(m, batch, s.cfg_large, upsample(small()), "noise", 1.0, s.fraction),
    "lsregen": lambda m, batch, small, s: xl(m, batch, s.cfg_large, upsample(small()), "ddim", s.w, s.fraction),
}
USUAL = ["gligen", "gligen-large", "xl", "img2img", "lsregen"]


@torch.inference_mode()
def run(m, batch, methods=USUAL, settings=Settings(), chunk=10):
    """Yields (method, layouts, images), `chunk` layouts at a time; the small images are sampled once."""
    for k in range(0, len(batch), chunk):
        part, made = batch[k : k + chunk], []

        def small():
            if not made:
                made.append(gligen(m, part, settings.cfg_small))
            return made[0]

        for name in methods:
            yield name, part, METHODS[name](m, part, small, settings)


def save(picture, path):
    pixels = ((picture.permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8)
    Image.fromarray(pixels).save(path)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", required=True, help="folder with gligen/ and xl/")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--layouts", type=Path, help="use the layouts of this file instead of random ones")
    p.add_argument("--count", type=int, default=100)
    p.add_argument("--world-seed", type=int, default=21)
    p.add_argument("--methods", nargs="+", default=USUAL, choices=list(METHODS))
    Settings.options(p)
    a = p.parse_args()
    batch = json.loads(a.layouts.read_text()) if a.layouts else layouts(a.count, a.world_seed)
    for name in a.methods:
        (a.out / name).mkdir(parents=True, exist_ok=True)
    (a.out / "layouts.json").write_text(json.dumps(batch, indent=1) + "\n")
    for name, part, pictures in run(Models(a.models), batch, a.methods, Settings.of(a)):
        for layout, picture in zip(part, pictures):
            save(picture, a.out / name / f"{layout['id']:04}.png")
        print(name, part[-1]["id"] + 1, flush=True)


if __name__ == "__main__":
    main()
