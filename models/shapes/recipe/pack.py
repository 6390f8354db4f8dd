"""Writes trained networks into a model folder as f16, beside its tokenizer, scheduler and index.

usage: pack.py FOLDER [--vae VAE] [--nets TRAINED]
"""
import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

KINDS = {"unet": UNet2DConditionModel, "text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=Path)
    p.add_argument("--vae", type=Path)
    p.add_argument("--nets", type=Path, help="output folder of train_unet.py")
    a = p.parse_args()
    sources = {"vae": (AutoencoderKL, a.vae)} if a.vae else {}
    if a.nets:
        sources |= {name: (kind, a.nets / name) for name, kind in KINDS.items() if (a.nets / name).exists()}
    for name, (kind, source) in sources.items():
        kind.from_pretrained(source, torch_dtype=torch.float32).half().save_pretrained(a.folder / name)
        config = a.folder / name / "config.json"
        config.write_text("".join(line + "\n" for line in config.read_text().splitlines() if '"_name_or_path"' not in line))


if __name__ == "__main__":
    main()
