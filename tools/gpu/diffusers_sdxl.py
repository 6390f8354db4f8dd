"""Times diffusers' SDXL pipeline on the images of sdxl.yaml, for measure.py.

usage: diffusers_sdxl.py MODEL --device cuda|cpu --dtype bf16|f32 --sizes 1024x1024,… --steps 4,24
Prints one JSON line: for each size, the seconds of each number of steps, as it is and with the U-Net compiled, the peak bytes and
the FLOPs of a step. `seconds` cover sampling and decoding, after a warm-up and with the device synchronised. TF32 is off.

"""
import argparse
import json
import sys

import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline
from torch.utils.flop_counter import FlopCounterMode

from ceilings import DTYPES, timed


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
    a = p.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    dtype = DTYPES[a.dtype]
    pipe = StableDiffusionXLPipeline.from_pretrained(a.model, torch_dtype=dtype, variant=a.variant, local_files_only=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    pipe.to(a.device)
    # An autoencoder that overflows decodes in f32, as in lsregen.
    result = {"torch": torch.__version__, "sizes": {}, "weights": sum(w.nbytes for w in pipe.unet.parameters())}
    draw = lambda width, height, steps: pipe(
        "a red circle and a blue square on moss", width=width, height=height, num_inference_steps=steps, guidance_scale=5.0,
        output_type="pt", generator=torch.Generator().manual_seed(7))
    for size in a.sizes.split(","):
        width, height = map(int, size.split("x"))
        draw(width, height, 2)
        if a.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = {steps: timed(a.device, lambda: draw(width, height, steps)) for steps in map(int, a.steps.split(","))}
        peak = torch.cuda.max_memory_reserved() if a.device == "cuda" else None
        result["sizes"][size] = {"seconds": seconds, "peak": peak, "flops": flops(pipe.unet, width, height)}
    if a.device == "cuda":
        # Last, because compiling may fail where Triton or a C compiler is missing. Each size is compiled anew.
        pipe.unet = torch.compile(pipe.unet, dynamic=False)
        for size in result["sizes"]:
            width, height = map(int, size.split("x"))
            try:
                draw(width, height, 2)
                compiled = {steps: timed(a.device, lambda: draw(width, height, steps)) for steps in map(int, a.steps.split(","))}
                result["sizes"][size]["compiled"] = compiled
            except Exception as error:
                print(f"not compiled: {error}", file=sys.stderr)
                break
    print(json.dumps(result))


if __name__ == "__main__":
    main()
