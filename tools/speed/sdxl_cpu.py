"""Memory and time of SDXL at full size on the CPU: lsregen and diffusers in one run.

    sdxl_cpu.py --model FOLDER [--binary target/release/lsregen] [--dtype bf16] [--only step,decode] [--small]

`step`: one step at 1024×1024 with both halves of classifier-free guidance, and its decoding; from prompt to PNG. Limit:
16 GiB. `decode`: a latent of 1920×1440 to PNG. Limit: 6 GiB. Our side is `lsregen run --dtype bf16 --no-cache` on a graph
written here. The other side is diffusers' pipeline in bf16, with its autoencoder as the pipeline has it (bf16 stays bf16; only
f16 is upcast), and once more tiled (`enable_tiling`). Prints the seconds from process start to exit, the peak resident memory
as the system accounts for the finished process (including mapped pages of the weights), ratios, and the difference of the
images in levels of 255: the same weights and the same noise must give nearly the same image.

FOLDER is SDXL base in diffusers' layout, in f32, f16 or bf16. Random weights work too, without a download:
`python tools/weights/full_size.py --make sdxl-fp16 FOLDER` (7 GB). `--small` runs everything on the built-in shapes/xl.


Needs torch 2.15, diffusers 0.39, transformers 4.57; 16 GiB of memory.
"""
import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PROMPT, SEED, CFG = "a red circle and a blue square", 7, 5.0
BOUNDS = {"step": 16.0, "decode": 6.0}


def graph(case, folder, latent, size):
    """Returns the graph of a case as JSON, which is YAML too."""
    nodes = {"xl": {"type": "LoadModel", "model": str(folder)}}
    if case == "step":
        nodes["latent"] = {"type": "SDXLSample", "model": "xl", "prompt": PROMPT, "seed": SEED, "steps": 1, "cfg": CFG,
                           "width": size[0], "height": size[1]}
    else:
        nodes["latent"] = {"type": "LoadLatent", "path": str(latent)}
    nodes["image"] = {"type": "Decode", "model": "xl", "latent": "latent"}
    nodes["save"] = {"type": "SaveImage", "image": "image", "path": f"{case}-ours.png"}
    return json.dumps({"lsregen": 1, "nodes": nodes}, indent=1)


def child(case, folder, latent, size, out):
    """Runs a case with diffusers. Prints one JSON line of seconds."""
    import numpy as np, torch
    from PIL import Image
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline
    from safetensors.torch import load_file
    stages, at = {}, time.perf_counter()

    def done(stage):
        nonlocal at
        stages[stage], at = time.perf_counter() - at, time.perf_counter()

    def save(x):
        x = (x[0].float().clamp(-1, 1).permute(1, 2, 0).numpy() + 1) * 127.5
        Image.fromarray(x.round().astype(np.uint8)).save(out)

    options = {"torch_dtype": torch.bfloat16, "local_files_only": True}
    if any((folder / "unet").glob("*.fp16.safetensors")):
        options["variant"] = "fp16"
    with torch.inference_mode():
        if case == "step":
            pipe = StableDiffusionXLPipeline.from_pretrained(folder, **options)
            pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
            pipe.set_progress_bar_config(disable=True)
            done("load")
            width, height = size
            # The same noise as lsregen: f32, then scaled by the scheduler as in the pipeline.
            noise = torch.randn(1, 4, height // 8, width // 8, generator=torch.Generator().manual_seed(SEED))
            z = pipe(PROMPT, num_inference_steps=1, guidance_scale=CFG, width=width, height=height, latents=noise.bfloat16(),
                     output_type="latent").images
            done("sample")
            vae = pipe.vae
        else:
            vae = AutoencoderKL.from_pretrained(folder / "vae", **options)
            if case == "tiled":
                vae.enable_tiling()
            z = load_file(latent)["latent"].to(torch.bfloat16)
            done("load")
        save(vae.decode(z / vae.config.scaling_factor).sample)
        done("decode")
    print(json.dumps(stages))


# A child inherits its parent's peak memory in the system's accounting, so a small launcher starts it, not this script with torch.
LAUNCHER = """
import os, sys, time
start = time.perf_counter()
_, status, usage = os.wait4(os.spawnvp(os.P_NOWAIT, sys.argv[2], sys.argv[2:]), 0)
print(os.waitstatus_to_exitcode(status), time.perf_counter() - start, usage.ru_maxrss, file=open(sys.argv[1], "w"))
"""


def timed(command):
    """Returns (wall-clock seconds, peak GiB, output) of a command that must succeed."""
    with tempfile.TemporaryFile("w+") as log, tempfile.NamedTemporaryFile("r") as result:
        subprocess.run([sys.executable, "-I", "-S", "-c", LAUNCHER, result.name, *map(str, command)], stdout=log, stderr=log, check=True)
        status, seconds, memory = result.read().split()
        log.seek(0)
        text = log.read()
    if int(status):
        raise SystemExit(f"{command[0]} failed:\n{text[-4000:]}")
    return float(seconds), int(memory) / 2**20, text


def distance(a, b):
    """Returns the mean and the largest difference of two images, in levels."""
    import numpy as np
    from PIL import Image
    a, b = (np.asarray(Image.open(p).convert("RGB"), np.int32) for p in (a, b))
    return float(abs(a - b).mean()), int(abs(a - b).max())


def write_latent(path, size):
    import torch
    from safetensors.torch import save_file
    z = torch.randn(1, 4, size[1] // 8, size[0] // 8, generator=torch.Generator().manual_seed(SEED))
    save_file({"latent": z}, path)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=Path)
    p.add_argument("--binary", type=Path, default=ROOT / "target/release/lsregen")
    p.add_argument("--dtype", default="bf16", help="lsregen's --dtype; an empty value omits the option")
    p.add_argument("--only", default="step,decode")
    p.add_argument("--small", action="store_true")
    p.add_argument("--keep", type=Path, help="a folder in which to keep the images")
    p.add_argument("--child", nargs=6, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.child:
        case, folder, latent, width, height, out = a.child
        return child(case, Path(folder), latent, (int(width), int(height)), out)
    if not a.model and not a.small:
        p.error("--model or --small")
    folder = (a.model or ROOT / "models/shapes/xl").resolve()
    sizes = {"step": (256, 256), "decode": (480, 360)} if a.small else {"step": (1024, 1024), "decode": (1920, 1440)}
    with tempfile.TemporaryDirectory() as work:
        work = a.keep or Path(work)
        work.mkdir(parents=True, exist_ok=True)
        for case in a.only.split(","):
            size = sizes[case]
            latent = work / "latent.safetensors"
            write_latent(latent, size)
            file = work / f"{case}.yaml"
            file.write_text(graph(case, folder, latent.resolve(), size))
            command = [a.binary, "run", file, "--device", "cpu", "--no-cache", "--output-dir", work, *(["--dtype", a.dtype] if a.dtype else [])]
            seconds, memory, text = timed(command)
            stages = ", ".join(f"{kind} {s} s" for kind, s in re.findall(r"^\S+ +(\w+) +([\d.]+) s$", text, re.M))
            print(f"{case}, {size[0]}×{size[1]}\n  {'lsregen':18}{seconds:9.1f} s{memory:8.2f} GiB "
                  f"({'within' if memory <= BOUNDS[case] else 'ABOVE'} {BOUNDS[case]:.0f})   {stages}", flush=True)
            for form in ["step"] if case == "step" else ["decode", "tiled"]:
                out = work / f"{form}-theirs.png"
                other, their_memory, text = timed([sys.executable, __file__, "--child", form, folder, latent, *size, out])
                stages = ", ".join(f"{k} {v:.2f} s" for k, v in json.loads(text.splitlines()[-1]).items())
                mean, most = distance(work / f"{case}-ours.png", out)
                print(f"  {'diffusers' + (', tiled' if form == 'tiled' else ''):18}{other:9.1f} s{their_memory:8.2f} GiB"
                      f"{'':13}{stages}\n  {'ratio':18}{seconds / other:9.2f}  {memory / their_memory:8.2f}"
                      f"      images differ by {mean:.2f} levels on average, {most} at most", flush=True)


if __name__ == "__main__":
    main()
