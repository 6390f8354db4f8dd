"""Trains the U-Net and the text encoder(s) of one of the two models, from scratch or from existing weights.

    train_unet.py gligen --tokenizer TOK --vae VAE --out DIR [--start models/shapes/gligen]
    train_unet.py xl     --tokenizer TOK --vae VAE --out DIR [--start models/shapes/xl]

New scenes are rendered throughout the training (without flips, because the light comes from the left). Three things make
the models learn layouts, and bind colours to objects, in affordable time:

- The loss is weighted by (1 - a)/a, clamped to [.5, --clip]: at the timesteps that decide the layout, the plain noise loss
  is almost zero.
- Auxiliary heads, used in training only, predict the colour and shape at each position from the output of each grounding
  layer (gligen) or transformer block (xl), and the position itself from its input.
- For gligen: the gates start at .8, boxes are kept when the caption is dropped, and all 30 slots are used.

From scratch, gligen is trained in three runs, each with --start on the previous one: `--above 500 --clip 300 300 --aux 1 1`,
`--above 250 --clip 60 60 --aux .7 .7`, `--clip 8 8 --aux .3 .3`. The defaults are for continuing after that.
"""
import argparse
import math
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock, GatedSelfAttentionDense
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from common import LrSchedule, Mean, Report
from world import COLORS, SHAPES, caption, render, sample_scene

SLOTS, WIDTH = 30, 64
CLASSES = [(c, s) for c in COLORS for s in SHAPES]
UNETS = {
    "gligen": dict(sample_size=16, block_out_channels=(32, 64, 96), cross_attention_dim=WIDTH, attention_head_dim=2, attention_type="gated",
                   down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
                   up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")),
    "xl": dict(sample_size=32, block_out_channels=(32, 64, 128), cross_attention_dim=2 * WIDTH, attention_head_dim=(1, 2, 4),
               down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
               up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 1, 2),
               use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=32,
               projection_class_embeddings_input_dim=6 * 32 + WIDTH),
}


def networks(model, start, tokenizer):
    """Returns (U-Net, text encoders by folder name), loaded from `start` or newly initialised."""
    kinds = {"text_encoder": (CLIPTextModel, "quick_gelu")} | ({"text_encoder_2": (CLIPTextModelWithProjection, "gelu")} if model == "xl" else {})
    if start:
        f32 = {"torch_dtype": torch.float32}
        return UNet2DConditionModel.from_pretrained(start / "unet", **f32), {k: c.from_pretrained(start / k, **f32) for k, (c, _) in kinds.items()}
    unet = UNet2DConditionModel(in_channels=4, out_channels=4, layers_per_block=1, norm_num_groups=8, **UNETS[model])
    for name, q in unet.named_parameters():
        if "fuser.alpha_" in name:
            q.data.fill_(0.8)
    text = {k: c(CLIPTextConfig(vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=3 if model == "xl" else 2,
                                num_attention_heads=4, max_position_embeddings=tokenizer.model_max_length, projection_dim=WIDTH, hidden_act=act,
                                bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id))
            for k, (c, act) in kinds.items()}
    return unet, text


class Pool:
    """Scenes and their latents: `first` of them at the start, then a few new ones per step, up to `size`."""

    def __init__(self, vae, picture, rng, size, first):
        self.vae, self.picture, self.rng, self.size, self.scenes = vae, picture, rng, size, []
        self.latents = torch.empty(size, 4, picture // 8, picture // 8)
        while len(self.scenes) < first:
            self.grow(min(16, first - len(self.scenes)))

    @torch.no_grad()
    def grow(self, count):
        new = [sample_scene(self.rng) for _ in range(min(count, self.size - len(self.scenes)))]
        if new:
            x = torch.stack([render(*scene, self.picture, self.rng.randrange(1 << 40)) for scene in new])
            k = len(self.scenes)
            self.latents[k : k + len(new)] = self.vae.encode(x).latent_dist.mean * self.vae.config.scaling_factor
            self.scenes += new


class Heads(nn.Module):
    """The auxiliary heads on every layer of `kind`: linear predictions of the class from its output and of the position from its input."""

    def __init__(self, unet, kind, side):
        super().__init__()
        self.side, self.seen, self.read, self.place = side, {}, nn.ModuleDict(), nn.ModuleDict()
        for name, layer in unet.named_modules():
            if isinstance(layer, kind):
                key, width = name.replace(".", "_"), layer.norm1.normalized_shape[0]
                self.read[key], self.place[key] = nn.Linear(width, 1 + len(COLORS) + len(SHAPES)), nn.Linear(width, 2)
                layer.register_forward_hook(lambda _, args, out, key=key: self.seen.__setitem__(key, (args[0].float(), out.float())))

    def forward(self, colors, shapes, known):
        """colors, shapes: (B, side, side) class maps, 0 for the background; `known` marks the samples whose map the network can infer."""
        total = 0.0
        for key, (before, after) in self.seen.items():
            batch, n = before.shape[0], math.isqrt(before.shape[1])
            step, line = self.side // n, (torch.arange(n) + 0.5) / n * 2 - 1
            where = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).reshape(1, n * n, 2).expand(batch, -1, -1)
            total = total + F.mse_loss(self.place[key](before), where)
            if known.any():
                color, shape = (m[known, step // 2 :: step, step // 2 :: step].flatten() for m in (colors, shapes))
                logits = self.read[key](after[known]).flatten(0, 1)
                total = total + F.cross_entropy(logits[:, : len(COLORS) + 1], color)
                if (shape > 0).any():
                    total = total + 0.5 * F.cross_entropy(logits[shape > 0][:, len(COLORS) + 1 :], shape[shape > 0] - 1)
        return total / len(self.seen)


def batch_of(rng, scenes, side, grounded, bare):
    """Returns captions (a share `bare` of them empty), class maps, grounding slots, and which samples have boxes (a share `grounded`)."""
    n = len(scenes)
    colors, shapes = torch.zeros(2, n, side, side, dtype=torch.long)
    boxes, which, masks = torch.zeros(n, SLOTS, 4), torch.zeros(n, SLOTS, dtype=torch.long), torch.zeros(n, SLOTS)
    captions, told = [], torch.tensor([rng.random() < grounded for _ in scenes])
    for i, (ground, objs) in enumerate(scenes):
        order = rng.sample(objs, len(objs))
        captions.append("" if rng.random() < bare else caption(ground, order))
        for j, (color, shape, box) in enumerate(order):
            x0, y0, x1, y1 = (round(v * side) for v in box)
            colors[i, y0:y1, x0:x1], shapes[i, y0:y1, x0:x1] = list(COLORS).index(color) + 1, SHAPES.index(shape) + 1
            if told[i]:
                boxes[i, j], which[i, j], masks[i, j] = torch.tensor(box), CLASSES.index((color, shape)), 1
    return captions, colors, shapes, (boxes, which, masks), told


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", choices=["gligen", "xl"])
    p.add_argument("--tokenizer", required=True)
    p.add_argument("--vae", required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--start", type=Path, help="model folder to continue from")
    p.add_argument("--steps", type=int, default=7000)
    p.add_argument("--minutes", type=float, default=1e9, help="wall-clock minutes after which the training ends")
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--pool", type=int, default=12000, help="number of scenes in the pool")
    p.add_argument("--first", type=int, default=1000, help="scenes rendered before the first step")
    p.add_argument("--fresh", type=int, default=4, help="scenes added at each step until the pool is full")
    p.add_argument("--lr", type=float, default=6e-4)
    p.add_argument("--above", type=int, default=0, help="lowest timestep to train")
    p.add_argument("--clip", type=float, nargs=2, help="largest loss weight at the start and at the end")
    p.add_argument("--aux", type=float, nargs=2, default=(0.5, 0.1), help="weight of the heads' loss at the start and at the end")
    p.add_argument("--bare", type=float, help="share of captions dropped")
    p.add_argument("--bf16", action="store_true", help="U-Net in bfloat16 where that is safe (faster on CPUs with bfloat16 instructions, for xl in particular)")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    rng, grounding = random.Random(a.seed + 500), a.model == "gligen"
    picture = 128 if grounding else 256
    clip, bare = a.clip or ((60, 8) if grounding else (12, 5)), a.bare if a.bare is not None else (0.25 if grounding else 0.1)
    tokenizer = CLIPTokenizer.from_pretrained(a.tokenizer)
    vae = AutoencoderKL.from_pretrained(a.vae, torch_dtype=torch.float32).requires_grad_(False)
    unet, text = networks(a.model, a.start, tokenizer)
    heads = Heads(unet, GatedSelfAttentionDense if grounding else BasicTransformerBlock, picture // 8)
    pool = Pool(vae, picture, rng, a.pool, a.first)
    alphas = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).alphas_cumprod

    def ids(texts):
        return tokenizer(texts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt").input_ids

    phrases = ids([f"a {color} {shape}" for color, shape in CLASSES])
    size_ids = torch.tensor([[picture, picture, 0, 0, picture, picture]]).float().repeat(a.batch, 1)

    def predict(z, t, captions, slots):
        if grounding:
            boxes, which, masks = slots
            embeddings = text["text_encoder"](phrases).pooler_output[which]
            cond = {"encoder_hidden_states": text["text_encoder"](ids(captions)).last_hidden_state,
                    "cross_attention_kwargs": {"gligen": {"boxes": boxes, "positive_embeddings": embeddings, "masks": masks}}}
        else:
            one, two = (text[k](ids(captions), output_hidden_states=True) for k in ("text_encoder", "text_encoder_2"))
            cond = {"encoder_hidden_states": torch.cat([one.hidden_states[-2], two.hidden_states[-2]], -1),
                    "added_cond_kwargs": {"text_embeds": two.text_embeds, "time_ids": size_ids}}
        with torch.autocast("cpu", torch.bfloat16, enabled=a.bf16):
            return unet(z, t, **cond).sample.float()

    kept = [q for net in (unet, *text.values()) for q in net.parameters()]
    params = kept + list(heads.parameters())
    optimizer, mean, report = torch.optim.AdamW(params, a.lr, weight_decay=1e-2, betas=(0.9, 0.99)), Mean(kept), Report()

    def save():
        mean.swap()
        for name, net in {"unet": unet, **text}.items():
            net.save_pretrained(a.out / name)
        mean.swap()

    for done in LrSchedule(optimizer, a.lr, a.steps, a.minutes):
        pool.grow(a.fresh)
        index = [rng.randrange(len(pool.scenes)) for _ in range(a.batch)]
        captions, colors, shapes, slots, told = batch_of(rng, [pool.scenes[k] for k in index], picture // 8, 0.87 if grounding else 0.0, bare)
        z, t = pool.latents[index], torch.randint(a.above, 1000, (a.batch,))
        alpha, eps = alphas[t][:, None, None, None], torch.randn_like(z)
        error = (predict(alpha.sqrt() * z + (1 - alpha).sqrt() * eps, t, captions, slots) - eps).pow(2)
        highest = clip[0] * (clip[1] / clip[0]) ** done
        weighted = (((1 - alpha) / alpha).clamp(0.5, highest) * error).mean() / math.sqrt(max(1, highest / 8))
        # xl has no boxes as input; its latent shows the layout once most of the noise is gone
        aux = heads(colors, shapes, told if grounding else t < 850)
        (weighted + (a.aux[0] + (a.aux[1] - a.aux[0]) * done) * aux).backward()
        nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        mean.update()
        report(done, loss=weighted, plain=error.mean(), aux=aux)
        if report.steps % 250 == 0:
            save()
    save()


if __name__ == "__main__":
    main()
