"""The default graph (graphs/lsregen.yaml) on diffusers' own networks, as lean as possible: the other side of speed.py.

Imports only what it uses, loads the same weights as f32, batches both halves of classifier-free guidance, and makes the
same network calls as lsregen: GLIGEN 20 steps, decode, bicubic upsampling, encode, DDIM inversion 20 steps, 20 guided
steps, decode. Prints one JSON line with seconds per stage.

Made with torch 2.15, diffusers 0.39, transformers 4.57.  usage: diffusers_run.py GRAPH OUT.png
"""
import json, sys, time
START = time.perf_counter()
from pathlib import Path
import numpy as np, torch, yaml
from PIL import Image
from diffusers import AutoencoderKL, DDIMInverseScheduler, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

ROOT = Path(__file__).resolve().parents[2]
SMALL, LARGE = ROOT / "models/shapes/gligen", ROOT / "models/shapes/xl"
stages = {"import": time.perf_counter() - START}


def stage(name):
    """Times a function under `name`."""
    def wrap(f):
        def g(*a):
            t = time.perf_counter()
            with torch.inference_mode():
                r = f(*a)
            stages[name] = stages.get(name, 0) + time.perf_counter() - t
            return r
        return g
    return wrap


@stage("load")
def load():
    f32 = {"torch_dtype": torch.float32}
    return dict(
        tok=CLIPTokenizer.from_pretrained(SMALL / "tokenizer"),
        te=CLIPTextModel.from_pretrained(SMALL / "text_encoder", **f32),
        unet=UNet2DConditionModel.from_pretrained(SMALL / "unet", **f32),
        vae=AutoencoderKL.from_pretrained(SMALL / "vae", **f32),
        tok1=CLIPTokenizer.from_pretrained(LARGE / "tokenizer"), tok2=CLIPTokenizer.from_pretrained(LARGE / "tokenizer_2"),
        te1=CLIPTextModel.from_pretrained(LARGE / "text_encoder", **f32),
        te2=CLIPTextModelWithProjection.from_pretrained(LARGE / "text_encoder_2", **f32),
        xl=UNet2DConditionModel.from_pretrained(LARGE / "unet", **f32),
        xvae=AutoencoderKL.from_pretrained(LARGE / "vae", **f32))


def scheduler(folder, cls=DDIMScheduler, steps=20):
    s = cls.from_pretrained(folder / "scheduler")
    s.set_timesteps(steps)
    return s


def ids(tok, texts):
    return tok(texts, padding="max_length", max_length=tok.model_max_length, truncation=True, return_tensors="pt").input_ids


@stage("gligen")
def gligen(m, prompt, boxes, seed, steps, cfg, slots, beta):
    s = scheduler(SMALL, steps=steps)
    n = m["unet"].config.sample_size
    h = m["te"](ids(m["tok"], ["", prompt])).last_hidden_state
    phrases = m["te"](ids(m["tok"], [b["phrase"] for b in boxes])).pooler_output
    box, emb, mask = torch.zeros(2, slots, 4), torch.zeros(2, slots, phrases.shape[-1]), torch.zeros(2, slots)
    for j, b in enumerate(boxes):
        box[:, j], emb[:, j], mask[1, j] = torch.tensor(b["box"]), phrases[j], 1
    z = torch.randn(1, 4, n, n, generator=torch.Generator().manual_seed(seed))
    from diffusers.models.attention import GatedSelfAttentionDense
    for i, t in enumerate(s.timesteps):
        if i == int(beta * steps):
            for k in m["unet"].modules():
                if isinstance(k, GatedSelfAttentionDense):
                    k.enabled = False
        g = {"gligen": {"boxes": box, "positive_embeddings": emb, "masks": mask}}
        u, c = m["unet"](torch.cat([z, z]), t, encoder_hidden_states=h, cross_attention_kwargs=g).sample.chunk(2)
        z = s.step(u + cfg * (c - u), t, z).prev_sample
    return z


@stage("decode")
def decode(vae, z):
    return vae.decode(z / vae.config.scaling_factor).sample.clamp(-1, 1)


@stage("upsample+encode")
def encode(m, x, size):
    x = torch.nn.functional.interpolate(x, size=(size, size), mode="bicubic", antialias=True).clamp(-1, 1)
    return m["xvae"].encode(x).latent_dist.mean * m["xvae"].config.scaling_factor


def condition(m, texts, size):
    o = m["te2"](ids(m["tok2"], texts), output_hidden_states=True)
    h = torch.cat([m["te1"](ids(m["tok1"], texts), output_hidden_states=True).hidden_states[-2], o.hidden_states[-2]], -1)
    return h, {"text_embeds": o.text_embeds, "time_ids": torch.tensor([[size, size, 0, 0, size, size]]).float().repeat(len(texts), 1)}


@stage("invert")
def invert(m, z, prompt, steps, size):
    s = scheduler(LARGE, DDIMInverseScheduler, steps)
    h, a = condition(m, [prompt], size)
    out = {}
    for t in s.timesteps:
        z = s.step(m["xl"](z, t, encoder_hidden_states=h, added_cond_kwargs=a).sample, t, z).prev_sample
        out[int(t)] = z
    return out


@stage("sample")
def sample(m, prompt, seed, steps, cfg, size, track, w, window):
    s = scheduler(LARGE, steps=steps)
    h, a = condition(m, ["", prompt], size)
    z = torch.randn(1, 4, size // 8, size // 8, generator=torch.Generator().manual_seed(seed))
    for i, t in enumerate(s.timesteps):
        if i < max(1, round(window * steps)):
            z = (1 - w) * z + w * track[int(t)]
        u, c = m["xl"](torch.cat([z, z]), t, encoder_hidden_states=h, added_cond_kwargs=a).sample.chunk(2)
        z = s.step(u + cfg * (c - u), t, z).prev_sample
    return z


def main(graph, out):
    g = yaml.safe_load(Path(graph).read_text())
    p, nodes = g["params"], g["nodes"]
    value = lambda node, key, default: (lambda v: p[v[2:-1]] if isinstance(v, str) and v.startswith("${") else v)(node.get(key, default))
    by = {n["type"]: n for n in nodes.values()}
    lay, inv, smp, up = by["GLIGENLayout"], by["Invert"], by["GuidedSDXLSample"], by["Upsample"]
    m = load()
    size = value(up, "width", 256)
    z = gligen(m, value(lay, "prompt", ""), value(lay, "boxes", []), value(lay, "seed", 0), value(lay, "steps", 20),
               value(lay, "cfg", 3.0), value(lay, "slots", 30), value(lay, "beta", 1.0))
    x = decode(m["vae"], z)
    track = invert(m, encode(m, x, size), value(inv, "prompt", ""), value(inv, "steps", 20), size)
    z = sample(m, value(smp, "prompt", ""), value(smp, "seed", 0), value(smp, "steps", 20), value(smp, "cfg", 4.0), size, track,
               value(inv, "strength", .75), value(inv, "window", .1))
    x = decode(m["xvae"], z)[0]
    Image.fromarray(((x.permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8)).save(out)
    stages["total inside"] = time.perf_counter() - START
    print(json.dumps(stages))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
