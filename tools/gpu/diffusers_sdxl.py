"""Times diffusers' SDXL pipeline on the images of sdxl.yaml, and the peak throughput of the device, for measure.py.

usage: diffusers_sdxl.py MODEL --device cuda|cpu --dtype bf16|f32 --sizes 1024x1024,… --steps 4,24 [--ceiling N]
Prints one JSON line: for each size, the seconds of each number of steps, the peak bytes and the FLOPs of a step; and the
peak throughput. `seconds` cover sampling and decoding, after a warm-up and with the device synchronised. TF32 is off.

"""
import argparse
import json
import time

import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline
from torch.utils.flop_counter import FlopCounterMode

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def timed(device, f):
    wait(device)
    start = time.perf_counter()
    f()
    wait(device)
    return time.perf_counter() - start


def ceilings(device, dtype, n):
    """Measures the FLOP/s of a square matrix product and the bytes/s of a copy (reads and writes), the best of five each."""
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    c = torch.empty_like(a)
    rounds = 10
    many = lambda f: lambda: [f() for _ in range(rounds)]
    product = min(timed(device, many(lambda: torch.mm(a, b, out=c))) for _ in range(5)) / rounds
    copy = min(timed(device, many(lambda: c.copy_(a))) for _ in range(5)) / rounds
    return {"matmul": 2 * n**3 / product, "copy": 2 * a.nbytes / copy}


def flops(unet, width, height):
    """Counts the FLOPs of the U-Net for both halves of classifier-free guidance, from shapes alone."""
    with torch.device("meta"):
        net = type(unet).from_config(unet.config)
        c = net.config
        width_of_text = c.projection_class_embeddings_input_dim - 6 * c.addition_time_embed_dim
        added = {"text_embeds": torch.empty(2, width_of_text), "time_ids": torch.empty(2, 6)}
        z = torch.empty(2, c.in_channels, height // 8, width // 8)
        with FlopCounterMode(display=False) as counter:
            net(z, torch.empty(()), torch.empty(2, 77, c.cross_attention_dim), added_cond_kwargs=added)
    return counter.get_total_flops()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("--device", default="cuda")
    p.add_argument("--dtype", default="bf16", choices=DTYPES)
    p.add_argument("--variant")
    p.add_argument("--sizes", required=True)
    p.add_argument("--steps", required=True)
    p.add_argument("--ceiling", type=int, default=8192, help="size of the square matrices whose product is timed")
    a = p.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    dtype = DTYPES[a.dtype]
    pipe = StableDiffusionXLPipeline.from_pretrained(a.model, torch_dtype=dtype, variant=a.variant, local_files_only=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    pipe.to(a.device)
    # An autoencoder that overflows decodes in f32, as in lsregen.
    result = {"torch": torch.__version__, "sizes": {}, "weights": sum(w.nbytes for w in pipe.unet.parameters())}
    result["ceilings"] = ceilings(a.device, dtype, a.ceiling)
    for size in a.sizes.split(","):
        width, height = map(int, size.split("x"))
        draw = lambda steps: pipe("a red circle and a blue square on moss", width=width, height=height,
                                  num_inference_steps=steps, guidance_scale=5.0, output_type="pt",
                                  generator=torch.Generator().manual_seed(7))
        draw(2)
        if a.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = {steps: timed(a.device, lambda: draw(steps)) for steps in map(int, a.steps.split(","))}
        peak = torch.cuda.max_memory_reserved() if a.device == "cuda" else None
        result["sizes"][size] = {"seconds": seconds, "peak": peak, "flops": flops(pipe.unet, width, height)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
