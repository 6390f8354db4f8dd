"""Decodes a large image with lsregen's autoencoder and with diffusers', whole and tiled. Prints two tables.

The first table gives the seconds of the decoding and the peak memory of the process, for SDXL's autoencoder at full size
with random weights in f32; each side runs in a process of its own, alternately. The second gives the difference between
decoding in parts and decoding the whole latent, in levels of 8-bit images, for the built-in autoencoder and an image whose
parts all differ.


Made with torch 2.15, diffusers 0.39. The binary: cargo build --release -p lsregen-diffusion --example decode
usage: decode.py [--binary target/release/examples/decode] [--size 1920 1440] [--whole] [--only ours|theirs|differences]
"""
import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

from speed import timed

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SDXL = dict(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, norm_num_groups=32,
            scaling_factor=0.13025, sample_size=1024, down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4)


def rival(mode, width, height):
    """Decodes noise with diffusers, whole or tiled, and prints the seconds. Runs in a process of its own."""
    import torch
    from diffusers import AutoencoderKL
    torch.manual_seed(0)
    vae = AutoencoderKL(**SDXL).eval()
    if mode == "tiled":
        vae.enable_tiling()
    z = torch.randn(1, 4, height // 8, width // 8)
    with torch.inference_mode():
        start = time.perf_counter()
        vae.decode(z)
    print(f"decode seconds {time.perf_counter() - start:.1f}")


def seconds(text):
    return float(re.search(r"decode .*?seconds ([\d.]+)", text)[1])


def costs(a):
    width, height = map(str, a.size)
    runs = []
    if a.only != "theirs":
        runs.append(("lsregen", [a.binary, width, height]))
        if a.whole:
            runs.append(("lsregen, every map at once", [a.binary, width, height, "numbers=whole"]))
    if a.only != "ours":
        runs.append(("diffusers, tiled", [sys.executable, __file__, "--rival", "tiled", "--size", width, height]))
        if a.whole:
            runs.append(("diffusers, whole", [sys.executable, __file__, "--rival", "whole", "--size", width, height]))
    print(f"| decode {width}×{height} | s | peak memory, MiB |\n|---|--:|--:|")
    for name, command in runs:
        _, peak, text = timed(command)
        print(f"| {name} | {seconds(text):.1f} | {peak:.0f} |", flush=True)


def differences(a):
    import torch
    from diffusers import AutoencoderKL
    from safetensors.torch import load_file, save_file
    vae = AutoencoderKL.from_pretrained(ROOT / "models/shapes/xl/vae").float().eval()
    scale = vae.config.scaling_factor
    latents = load_file(ROOT / "src/diffusion/tests/fixtures/runs.safetensors")
    with torch.inference_mode():
        pictures = [vae.decode(latents[name] / scale).sample.clamp(-1, 1) for name in
                    ("xl", "lsregen", "xl.euler", "xl.eta", "inverted", "xl.negative")]
        rows = [torch.cat([pictures[(x + y) % 6] for x in range(4)], 3) for y in range(3)]
        picture = torch.cat(rows, 2)
        picture[..., :512], picture[..., :150, :] = .4, .4
        z = vae.encode(picture).latent_dist.mean
        whole = vae.decode(z).sample
        vae.enable_tiling()
        tiled = vae.decode(z).sample
    with tempfile.TemporaryDirectory() as folder:
        save_file({"latent": (z * scale).contiguous()}, f"{folder}/z.safetensors")

        def ours(numbers):
            timed([a.binary, f"model={ROOT / 'models/shapes/xl'}", f"latent={folder}/z.safetensors",
                   f"save={folder}/picture.safetensors", f"numbers={numbers}"])
            return load_file(f"{folder}/picture.safetensors")["picture"]
        # Bands of 64 rows at full size, as for an image of 1920×1440.
        mine, bands = ours("whole"), ours(1024 * 32 * 64)
    print("| 1024×768 in parts, of 255 | mean | largest |\n|---|--:|--:|")
    for name, d in [("lsregen, bands", bands - mine), ("diffusers, tiles of 256", tiled - whole),
                    ("lsregen and diffusers, both whole", mine - whole)]:
        d = d.abs() * 127.5
        print(f"| {name} | {d.mean():.5f} | {d.max():.4f} |")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--binary", type=Path, default=ROOT / "target/release/examples/decode")
    p.add_argument("--size", type=int, nargs=2, default=(1920, 1440))
    p.add_argument("--whole", action="store_true", help="also decode the whole at once; some 12 GB each at 1920×1440")
    p.add_argument("--only", choices=("ours", "theirs", "differences"))
    p.add_argument("--rival", choices=("tiled", "whole"), help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.rival:
        return rival(a.rival, *a.size)
    if a.only != "differences":
        costs(a)
    if a.only in (None, "differences"):
        differences(a)


if __name__ == "__main__":
    main()
