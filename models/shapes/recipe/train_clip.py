"""Trains the CLIP of the shapes world on 64 × 64 images and captions, and measures its retrieval accuracy.

usage: train_clip.py --out ../clip            see --help

Scenes are rendered in advance. Some training images are blurred, some get noise, and some have passed through the
autoencoder with noise on their latent, because predictions from the middle of a sampling look like that. Beside the
contrastive loss, an auxiliary head, discarded afterwards, teaches each patch which object it shows. This makes such a short
training sufficient.
"""
import argparse
import json
import math
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from common import LrSchedule, Mean, Report
from world import COLORS, GROUNDS, SHAPES, _sdf, render, sample_scene

SIDE, PATCH = 64, 8
THINGS = [(c, s) for c in COLORS for s in SHAPES]
TEXT = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32)
VISION = dict(hidden_size=96, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4, image_size=SIDE, patch_size=PATCH)


def model_of(tokenizer):
    special = dict(bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model = CLIPModel(CLIPConfig(text_config=TEXT | special | dict(vocab_size=len(tokenizer)), vision_config=VISION, projection_dim=64))
    with torch.no_grad():
        model.logit_scale.fill_(math.log(10))
        for p in [*model.text_model.embeddings.parameters(), *model.vision_model.embeddings.parameters()]:
            p.normal_(0, 0.05)
    return model


class Scene:
    """A scene and the captions that are true of it."""

    def __init__(self, rng):
        if rng.random() < 0.25:  # one large object, as in a crop
            s = rng.uniform(0.5, 0.95)
            x, y = (rng.uniform(0, 1 - s) for _ in "xy")
            self.ground, self.objs = rng.choice(list(GROUNDS)), [(*rng.choice(THINGS), (x, y, x + s, y + s))]
        else:
            self.ground, self.objs = sample_scene(rng, sizes=(0.18, 0.6))

    def picture(self, size, rng):
        return render(self.ground, self.objs, size, rng.randrange(1 << 40))

    def patches(self):
        """Returns (8, 8): the object class at the centre of each patch, counted from 1; 0 for the background."""
        n = SIDE // PATCH
        ys, xs = torch.meshgrid(*[(torch.arange(n) + 0.5) / n] * 2, indexing="ij")
        out = torch.zeros(n, n, dtype=torch.uint8)
        for c, s, (x0, y0, x1, y1) in self.objs:
            d = _sdf(s, (xs - (x0 + x1) / 2) * 2 / (x1 - x0), (ys - (y0 + y1) / 2) * 2 / (y1 - y0))
            out[d < 0.1] = 1 + THINGS.index((c, s))
        return out

    def say(self, rng, whole=False):
        """Returns a caption, the objects that it names, and the ground if it names that."""
        things = [(c, s) for c, s, _ in self.objs]
        if not whole and len(things) > 1 and rng.random() < 0.1:
            things = rng.sample(things, len(things) - 1)
        rng.shuffle(things)
        ground = whole or rng.random() < 0.6
        article, before = ("a", "") if whole else (rng.choice(["a", "a", "a", "the", ""]), rng.choice(["", "", "", "a picture of ", "a photo of "]))
        text = before + " and ".join(f"{article} {c} {s}".strip() for c, s in things) + (f" on {self.ground}" if ground else "")
        return text, frozenset(things), self.ground if ground else None

    def shows(self, said):
        _, things, ground = said
        return things <= {(c, s) for c, s, _ in self.objs} and ground in (None, self.ground)


def pool_of(count, rng, vae):
    """Returns scenes, their images in 8 bits (a third of them passed through the autoencoder), and the classes of their patches."""
    scenes = [Scene(rng) for _ in range(count)]
    pictures = torch.empty(count, 3, SIDE, SIDE, dtype=torch.uint8)
    keep = lambda x: ((x.clamp(-1, 1) + 1) * 127.5).round().byte()
    small = lambda x: F.interpolate(x, size=(SIDE, SIDE), mode="bicubic", antialias=True)
    coded = [i for i in range(count) if vae is not None and rng.random() < 0.33]
    for i in set(range(count)) - set(coded):
        size = rng.choice([SIDE, 96])
        pictures[i] = keep(small(scenes[i].picture(size, rng)[None])[0])
    for first in range(0, len(coded), 16):
        group = coded[first : first + 16]
        with torch.no_grad():
            z = vae.encode(torch.stack([scenes[i].picture(128, rng) for i in group])).latent_dist.mean
            noise = torch.randn_like(z) / vae.config.scaling_factor
            z = z + noise * (torch.rand(len(group), 1, 1, 1) ** 2 * 0.7)
            pictures[group] = keep(small(vae.decode(z).sample))
    return scenes, pictures, torch.stack([s.patches() for s in scenes])


def disturb(x, much=1.0):
    """Adds noise of up to 0.6 to half of the images and blurs a third of them; strong noise is rare."""
    n = len(x)
    sigma = (torch.rand(n, 1, 1, 1) ** 2 * 0.6 * much) * (torch.rand(n, 1, 1, 1) < 0.5)
    side = random.choice([16, 24, 32, 48])
    soft = F.interpolate(F.interpolate(x, size=(side, side), mode="bilinear", antialias=True), size=x.shape[2:], mode="bicubic")
    x = torch.where(torch.rand(n, 1, 1, 1) < 0.33 * much, soft, x)
    contrast = 1 - 0.4 * much * torch.rand(n, 1, 1, 1) ** 2
    return (x * contrast + torch.randn_like(x) * sigma).clamp(-1.5, 1.5)


def tokens(tokenizer, texts):
    return tokenizer(texts, padding="max_length", max_length=32, truncation=True, return_tensors="pt").input_ids


@torch.no_grad()
def measure(model, tokenizer, rng, count=600):
    """Measures on new scenes: the right caption among 100, the right image among 100, and colour and shape of cropped objects."""
    model.eval()
    scenes = [Scene(rng) for _ in range(count)]
    clean = torch.stack([s.picture(SIDE, rng) for s in scenes])
    said = [s.say(rng, whole=True) for s in scenes]
    texts = F.normalize(model.get_text_features(input_ids=tokens(tokenizer, [t for t, _, _ in said])), dim=-1)
    others = [rng.sample([j for j in range(count) if not s.shows(said[j])], 99) for s in scenes]
    figures = {}
    torch.manual_seed(1)
    for name, pictures in (("clean", clean), ("noise .3", clean + 0.3 * torch.randn_like(clean)),
                           ("blur", F.interpolate(F.interpolate(clean, size=(16, 16), mode="bilinear", antialias=True), size=(SIDE, SIDE), mode="bicubic"))):
        images = F.normalize(model.get_image_features(pixel_values=pictures), dim=-1)
        scores = images @ texts.T
        right = [bool(scores[i, i] > scores[i, others[i]].max()) for i in range(count)]
        figures[f"caption of 100, {name}"] = sum(right) / count
        back = [bool(scores[i, i] > max(scores[k, i] for k in rng.sample([k for k in range(count) if not scenes[k].shows(said[i])], 99))) for i in range(count)]
        figures[f"picture of 100, {name}"] = sum(back) / count
    crops, truth = [], []
    while len(crops) < count:
        ground, objs = sample_scene(rng)
        picture = render(ground, objs, 192, rng.randrange(1 << 40))
        for c, s, box in objs:
            x0, y0, x1, y1 = (round(v * 192) for v in box)
            m = round(0.1 * (x1 - x0))
            x0, y0, x1, y1 = max(x0 - m, 0), max(y0 - m, 0), min(x1 + m, 192), min(y1 + m, 192)
            crops.append(F.interpolate(picture[None, :, y0:y1, x0:x1], size=(SIDE, SIDE), mode="bicubic", antialias=True)[0])
            truth.append((c, s))
    names = F.normalize(model.get_text_features(input_ids=tokens(tokenizer, [f"a {c} {s}" for c, s in THINGS])), dim=-1)
    images = F.normalize(model.get_image_features(pixel_values=torch.stack(crops)), dim=-1)
    found = [THINGS[i] for i in (images @ names.T).argmax(1)]
    figures["colour of a crop"] = sum(f[0] == t[0] for f, t in zip(found, truth)) / len(truth)
    figures["shape of a crop"] = sum(f[1] == t[1] for f, t in zip(found, truth)) / len(truth)
    figures["both"] = sum(f == t for f, t in zip(found, truth)) / len(truth)
    model.train()
    return figures


def save(model, tokenizer_folder, out):
    """Writes the model in transformers' layout, in f16, with its tokenizer and the configuration of its image processor."""
    out.mkdir(parents=True, exist_ok=True)
    half = CLIPModel(model.config)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(out)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        (out / name).write_bytes((tokenizer_folder / name).read_bytes())
    processor = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIDE, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    processor.save_pretrained(out)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--start", type=Path, help="trained model to continue from or, with --steps 0, to measure")
    p.add_argument("--models", type=Path, default=Path(__file__).parent.parent, help="folder with gligen/, whose tokenizer and autoencoder are used")
    p.add_argument("--steps", type=int, default=2600, help="0 only measures --start")
    p.add_argument("--scenes", type=int, default=10000)
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--lr", type=float, default=1.5e-3)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(a.seed)
    random.seed(a.seed)
    rng = random.Random(a.seed)
    words = a.models / "gligen" / "tokenizer"
    tokenizer = CLIPTokenizer.from_pretrained(words)
    model = CLIPModel.from_pretrained(a.start, torch_dtype=torch.float32) if a.start else model_of(tokenizer)
    if a.steps > 0:
        train(model, tokenizer, words, rng, a)
    for name, value in measure(model, tokenizer, random.Random(99)).items():
        print(f"{name}: {value:.3f}", flush=True)


def train(model, tokenizer, words, rng, a):
    vae = AutoencoderKL.from_pretrained(a.models / "gligen" / "vae", torch_dtype=torch.float32)
    scenes, pictures, patches = pool_of(a.scenes, rng, vae)
    print(f"{len(scenes)} scenes; {sum(q.numel() for q in model.parameters())} parameters", flush=True)
    head = torch.nn.Linear(VISION["hidden_size"], 1 + len(THINGS))
    params = [*model.parameters(), *head.parameters()]
    heavy = [q for q in params if q.ndim >= 2]
    groups = [dict(params=heavy, weight_decay=0.05), dict(params=[q for q in params if q.ndim < 2], weight_decay=0.0)]
    optimizer, mean, report = torch.optim.AdamW(groups, a.lr, betas=(0.9, 0.98)), Mean(model.parameters()), Report()
    for done in LrSchedule(optimizer, a.lr, a.steps, 1e9):
        chosen = [rng.randrange(len(scenes)) for _ in range(a.batch)]
        x, labels = pictures[chosen].float() / 127.5 - 1, patches[chosen].long()
        flipped = torch.rand(a.batch) < 0.5
        x[flipped], labels[flipped] = x[flipped].flip(3), labels[flipped].flip(2)
        x = disturb(x, min(1, 2 * done))
        said = [scenes[i].say(rng) for i in chosen]
        true = torch.tensor([[scenes[i].shows(s) for s in said] for i in chosen])
        also = true & ~torch.eye(a.batch, dtype=torch.bool)  # these captions are true too, so they are not negative examples
        out = model.vision_model(pixel_values=x)
        images = F.normalize(model.visual_projection(out.pooler_output), dim=-1)
        texts = F.normalize(model.get_text_features(input_ids=tokens(tokenizer, [t for t, _, _ in said])), dim=-1)
        logits = (images @ texts.T * model.logit_scale.exp()).masked_fill(also, -1e9)
        order = torch.arange(a.batch)
        contrast = (F.cross_entropy(logits, order) + F.cross_entropy(logits.T, order)) / 2
        shown = F.cross_entropy(head(out.last_hidden_state[:, 1:]).flatten(0, 1), labels.flatten())
        (contrast + (1 - 0.8 * done) * shown).backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(60))
        mean.update()
        hits = (logits.argmax(1) == order).float().mean()
        report(done, contrast=contrast, patches=shown, hits=hits, scale=model.logit_scale.exp())
        if report.steps % 500 == 0:
            mean.swap()
            save(model, words, a.out)
            print(json.dumps({k: round(v, 3) for k, v in measure(model, tokenizer, random.Random(5), 200).items()}), flush=True)
            mean.swap()
    mean.swap()
    save(model, words, a.out)


if __name__ == "__main__":
    main()
