"""Computes the outputs of fixed inputs with diffusers, for a model in any format that diffusers reads. Has the interface of `examples/probe.rs`.

    diffusers_probe.py --inputs IN.safetensors --outputs OUT.safetensors --model PATH
        [--vae PATH] [--gligen PATH] [--config FOLDER] --dtype f32|bf16|f16

PATH is a diffusers folder (safetensors, fp16 variant, sharded, .bin) or a single file in the original layout; for a file,
`--config` names a folder with the same configurations. `--gligen` adds the grounding of the pruned file to a folder. One
network is in memory at a time. Missing inputs are skipped, and so are networks that the folder lacks. The inputs, all with
batch size 1:


    unet.latent unet.t unet.context [unet.pooled unet.time_ids] [gligen.boxes gligen.masks gligen.embeddings]  ->  unet.output
    vae.latent (scaled)  ->  vae.decoded           vae.picture (-1 to 1)  ->  vae.encoded (the mean, scaled)
    text.ids, text_2.ids  ->  .last .penultimate .pooled, text_2.projected
"""
import argparse
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def stored_half(path):
    """Returns whether a file, or the first file of a folder, is safetensors in half precision."""
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    if not files or files[0].suffix != ".safetensors":
        return False
    with safe_open(files[0], "pt") as f:
        name = next(n for n in f.keys() if n.endswith(".weight"))
        return f.get_slice(name).get_dtype() == "F16"


def widen(net, dtype):
    """Lets a network compute in `dtype` with its weights as they are: each layer casts its own while it runs. The values are the same."""
    def before(layer, _):
        layer.kept = dict(layer._parameters)
        layer._parameters.update({n: p.to(dtype) for n, p in layer.kept.items() if p is not None})

    def after(layer, *_):
        layer._parameters.update(layer.__dict__.pop("kept"))

    for layer in net.modules():
        if layer._parameters:
            layer.register_forward_pre_hook(before)
            layer.register_forward_hook(after)
    return net


def load(cls, a, part):
    """Loads a network that computes in the requested dtype. In f32, half-precision weights are not widened in memory."""
    path = Path(a.vae if part == "vae" and a.vae else a.model)
    if a.dtype == "f32" and stored_half(path / part if (path / part).is_dir() else path):
        return widen(load_as(cls, a, part, torch.float16), torch.float32)
    return load_as(cls, a, part, DTYPES[a.dtype])


def load_as(cls, a, part, dtype):
    """Loads a network from a folder, a single file, or the file of one network in either layout."""
    path, options = Path(a.model), {"torch_dtype": dtype}
    if part == "vae" and a.vae:
        path = Path(a.vae)
        if path.is_file():
            return cls.from_single_file(str(path), config=str(a.config or a.model), subfolder="vae", local_files_only=True, **options)
        return cls.from_pretrained(path, **options)
    if path.is_dir():
        half = any((path / part).glob("*.fp16.*"))
        plain = any((path / part).glob("*.bin"))
        return cls.from_pretrained(path / part, variant="fp16" if half else None, use_safetensors=not plain, **options)
    if cls.__module__.startswith("diffusers"):
        return cls.from_single_file(str(path), config=str(a.config), subfolder=part, local_files_only=True, **options)
    from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm, load_single_file_checkpoint
    return create_diffusers_clip_model_from_ldm(cls, load_single_file_checkpoint(str(path)), subfolder=part, config=str(a.config),
                                                local_files_only=True, **options)


def with_grounding(cls, a):
    """Loads a folder's U-Net with the tensors of the pruned GLIGEN file, which has the names of the original layout."""
    import configs, original
    bare = load_as(cls, a, "unet", DTYPES[a.dtype]).state_dict()
    with torch.device("meta"):
        net = cls.from_config(configs.FAMILIES["gligen"]["unet"])
    added = load_file(a.gligen)
    grounding = {new: added[old].to(DTYPES[a.dtype]) for old, (new,), _ in original.unet(list(net.state_dict())) if old in added}
    net.load_state_dict(bare | grounding, assign=True)
    return net.eval()


def unet(a, x, out):
    from diffusers import UNet2DConditionModel
    if a.gligen:
        net = with_grounding(UNet2DConditionModel, a)
    else:
        net = load(UNet2DConditionModel, a, "unet")
    more = {}
    if "unet.pooled" in x:
        more["added_cond_kwargs"] = {"text_embeds": x["unet.pooled"], "time_ids": x["unet.time_ids"]}
    if "gligen.boxes" in x:
        more["cross_attention_kwargs"] = {"gligen": {"boxes": x["gligen.boxes"], "masks": x["gligen.masks"],
                                                     "positive_embeddings": x["gligen.embeddings"]}}
    out["unet.output"] = net(x["unet.latent"], x["unet.t"], encoder_hidden_states=x["unet.context"], **more).sample


def vae(a, x, out):
    from diffusers import AutoencoderKL
    net = load(AutoencoderKL, a, "vae")
    scale = net.config.scaling_factor
    if "vae.latent" in x:
        out["vae.decoded"] = net.decode(x["vae.latent"] / scale).sample
    if "vae.picture" in x:
        out["vae.encoded"] = net.encode(x["vae.picture"]).latent_dist.mean * scale


def text(a, x, out, part="text_encoder", name="text"):
    from transformers import CLIPTextModel, CLIPTextModelWithProjection
    projects = name == "text_2"
    net = load(CLIPTextModelWithProjection if projects else CLIPTextModel, a, part)
    made = net.text_model(x[f"{name}.ids"], output_hidden_states=True)
    out[f"{name}.last"], out[f"{name}.penultimate"], out[f"{name}.pooled"] = made.last_hidden_state, made.hidden_states[-2], made.pooler_output
    if projects:
        out["text_2.projected"] = net.text_projection(made.pooler_output)


@torch.inference_mode()
def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--inputs", required=True)
    p.add_argument("--outputs", required=True)
    p.add_argument("--model", required=True)
    p.add_argument("--vae")
    p.add_argument("--gligen")
    p.add_argument("--config")
    p.add_argument("--dtype", choices=DTYPES, default="f32")
    a = p.parse_args()
    x = {n: t.to(DTYPES[a.dtype]) if t.is_floating_point() and n != "unet.t" else t for n, t in load_file(a.inputs).items()}
    out = {}
    if "unet.latent" in x:
        unet(a, x, out)
    if "vae.latent" in x or "vae.picture" in x:
        vae(a, x, out)
    if "text.ids" in x:
        text(a, x, out)
    if "text_2.ids" in x:
        text(a, x, out, "text_encoder_2", "text_2")
    save_file({n: t.float().contiguous() for n, t in out.items()}, a.outputs)


if __name__ == "__main__":
    main()
