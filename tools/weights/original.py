"""Maps diffusers' names to those of the original checkpoints: latent-diffusion's U-Net and autoencoder, CLIP, OpenCLIP.

Each function yields (original name, its diffusers names, a function that converts their arrays to the original). Written from
the contents of the files, independently of the program under test.

"""
import re

import numpy as np

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
UNET_ENDS = {"conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
             "time_embedding.cond_proj": "time_embed.cond_proj",  # by analogy: no original has it
             "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
             "conv_norm_out": "out.0", "conv_out": "out.2"}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OLD_ATTENTION = {"group_norm": "group_norm", "to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
OPEN_CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
             "self_attn.out_proj": "attn.out_proj"}


def same(x):
    return x


def split(name):
    """Splits `a.b.weight` into (`a.b`, `weight`)."""
    return name.rsplit(".", 1)


def unet(names, layers=2):
    """The U-Net of every family. A level of the original has `layers` numbered blocks, then one that resizes."""
    attending = {n.split(".")[1] for n in names if n.startswith("up_blocks.") and ".attentions." in n}
    for name in names:
        module, leaf = split(name)
        if name.startswith("position_net."):
            yield name, [name], same
            continue
        if module in UNET_ENDS:
            yield f"{UNET_ENDS[module]}.{leaf}", [name], same
            continue
        side, rest = name.split("_block", 1)
        if side == "mid":
            kind, j, inner = re.fullmatch(r"\.(resnets|attentions)\.(\d+)\.(.+)", rest).groups()
            place = "middle_block.1" if kind == "attentions" else f"middle_block.{2 * int(j)}"
        else:
            i, kind, j, inner = re.fullmatch(r"s\.(\d+)\.(\w+)\.(\d+)\.(.+)", rest).groups()
            blocks = "input_blocks" if side == "down" else "output_blocks"
            first = int(i) * (layers + 1) + (1 if side == "down" else 0)
            if kind == "downsamplers":
                place, inner = f"{blocks}.{first + layers}.0", inner.replace("conv.", "op.")
            elif kind == "upsamplers":  # has the number of the last block, after resnet and attention
                place = f"{blocks}.{first + layers}.{2 if i in attending else 1}"
            else:
                place = f"{blocks}.{first + int(j)}.{1 if kind == 'attentions' else 0}"
        if kind == "resnets":
            part, leaf = split(inner)
            inner = f"{RESNET[part]}.{leaf}"
        yield f"{place}.{inner}", [name], same


def vae(names):
    """The autoencoder. The decoder numbers its levels from the other end, and attention uses 1×1 convolutions."""
    for name in names:
        if m := re.fullmatch(r"(\w+)\.mid_block\.(resnets|attentions)\.(\d)\.(.+)\.(weight|bias)", name):
            side, kind, j, part, leaf = m.groups()
            if kind == "attentions":
                matrix = leaf == "weight" and part != "group_norm"
                yield f"{side}.mid.attn_1.{VAE_ATTENTION[part]}.{leaf}", [name], (lambda x: x[:, :, None, None]) if matrix else same
                continue
            place, inner = f"{side}.mid.block_{int(j) + 1}", f"{part}.{leaf}"
        elif m := re.fullmatch(r"(encoder|decoder)\.(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.+)", name):
            side, way, i, kind, j, inner = m.groups()
            level = 3 - int(i) if way == "up" else int(i)
            place = f"{side}.{way}.{level}." + (f"block.{j}" if kind == "resnets" else "downsample" if way == "down" else "upsample")
        else:
            yield name.replace("conv_norm_out", "norm_out"), [name], same
            continue
        yield f"{place}.{inner.replace('conv_shortcut', 'nin_shortcut')}", [name], same


def vae_of_old_folder(names):
    """The autoencoder with the attention names of diffusers before 0.17, as in Stable Diffusion 1.4."""
    for name in names:
        module, leaf = split(name)
        for new, old in OLD_ATTENTION.items():
            if module.endswith(f"attentions.0.{new}"):
                module = module[: -len(new)] + old
        yield f"{module}.{leaf}", [name], same


def clip(names):
    """The names of transformers' CLIP, which are the same in both layouts."""
    for name in names:
        yield name, [name], same


def open_clip(names):
    """OpenCLIP. Queries, keys and values are one matrix, and the projection is applied from the right."""
    for name in names:
        inner = name.removeprefix("text_model.").removeprefix("encoder.")
        if m := re.fullmatch(r"layers\.(\d+)\.(.+)\.(weight|bias)", inner):
            i, part, leaf = m.groups()
            block = f"transformer.resblocks.{i}"
            if part in ("self_attn.q_proj", "self_attn.k_proj"):
                continue
            if part == "self_attn.v_proj":
                parts = [name.replace("v_proj", p) for p in ("q_proj", "k_proj", "v_proj")]
                yield f"{block}.attn.in_proj_{leaf}", parts, lambda *x: np.concatenate(x)
            else:
                yield f"{block}.{OPEN_CLIP[part]}.{leaf}", [name], same
        elif inner == "text_projection.weight":
            yield "text_projection", [name], lambda x: x.T
        else:
            ends = {"embeddings.token_embedding.weight": "token_embedding.weight", "embeddings.position_embedding.weight": "positional_embedding"}
            yield ends.get(inner, inner.replace("final_layer_norm", "ln_final")), [name], same


def schedule_buffers():
    """Returns the constants of the noise schedule, which Stable Diffusion 1.x files contain besides the weights."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas, kept = 1 - betas, np.cumprod(1 - betas)
    before = np.append(1.0, kept[:-1])
    variance = betas * (1 - before) / (1 - kept)
    return {
        "betas": betas, "alphas_cumprod": kept, "alphas_cumprod_prev": before, "sqrt_alphas_cumprod": kept**0.5,
        "sqrt_one_minus_alphas_cumprod": (1 - kept) ** 0.5, "log_one_minus_alphas_cumprod": np.log(1 - kept),
        "sqrt_recip_alphas_cumprod": kept**-0.5, "sqrt_recipm1_alphas_cumprod": (1 / kept - 1) ** 0.5,
        "posterior_variance": variance, "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
        "posterior_mean_coef1": betas * before**0.5 / (1 - kept), "posterior_mean_coef2": (1 - before) * alphas**0.5 / (1 - kept),
    }
