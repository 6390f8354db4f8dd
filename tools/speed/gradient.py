"""Memory and time of gradients through a U-Net and an autoencoder's decoder at growing image sizes, with all activations kept
and with every block recomputed (rematerialisation), beside torch's autograd through diffusers. Prints two tables and a plot.

Every measurement is a process of its own. It takes the gradient of the sum of the output with respect to the latent, through
the built-in SDXL-like model in f32; torch's weights are frozen too. Memory is the peak above what was in use before the first
gradient. Times are the smallest of several rounds, as CPU time (of all threads, which other processes disturb less) and as
wall-clock time.

Fails if the memory of recomputed gradients grows by more than half as much as that of kept ones.


Made with torch 2.15, diffusers 0.39, matplotlib 3.  The binary: cargo build --release -p lsregen-diffusion --example gradient_memory
usage: gradient.py [--binary PATH] [--unet 256 … 1536] [--decoder 256 …] [--rounds 2] [--threads N] [--plot docs/gradient-memory.svg] [--only ours]
"""
import argparse
import os
import re
import resource
import sys
import time
from pathlib import Path

from speed import timed

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MODES = {"kept": "everything kept", "again": "every block recomputed"}


def rival(part, pixels, mode, rounds):
    """Takes the same gradient with torch. Runs in a process of its own."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    def status(key):
        return int(re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

    def cpu():
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime

    torch.manual_seed(0)
    cls, folder = (UNet2DConditionModel, "unet") if part == "unet" else (AutoencoderKL, "vae")
    net = cls.from_pretrained(ROOT / "models/shapes/xl" / folder).float().requires_grad_(False)
    if mode == "again":
        net.enable_gradient_checkpointing()
        net.train()  # checkpointing is active in training mode only; there is no dropout
    side = pixels // 8
    z = torch.randn(1, 4, side, side, requires_grad=True)
    added = {"text_embeds": torch.randn(1, 64), "time_ids": torch.full((1, 6), float(pixels))}
    context = torch.randn(1, 77, 128)

    def gradient():
        if part == "unet":
            out = net(z, 501.0, encoder_hidden_states=context, added_cond_kwargs=added).sample
        else:
            out = net.decode(z).sample
        torch.autograd.grad(out.sum(), z)

    before, best, least = status("VmRSS"), float("inf"), float("inf")
    for _ in range(rounds):
        start, used = time.perf_counter(), cpu()
        gradient()
        best, least = min(best, time.perf_counter() - start), min(least, cpu() - used)
    print(f"{part} {pixels} {mode} seconds {best:.3f} cpu_seconds {least:.2f} peak_mib {status('VmHWM') - before:.1f}")


def measured(text):
    """Returns (wall-clock seconds, CPU seconds, MiB)."""
    return tuple(float(re.search(rf"\b{key} ([\d.]+)", text)[1]) for key in ("seconds", "cpu_seconds", "peak_mib"))


def plot(path, memory):
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "lsregen"
    import matplotlib.pyplot as plt
    parts = [part for part in ("unet", "decoder") if memory[part]]
    figure, axes = plt.subplots(1, len(parts), figsize=(5 * len(parts), 3.6), squeeze=False)
    for axis, part in zip(axes[0], parts):
        for side, style in (("lsregen", "o-"), ("torch", "s:")):
            for mode, colour in zip(MODES, ("tab:red", "tab:blue")):
                points = [(p, m[side, mode][2]) for p, m in memory[part].items() if (side, mode) in m]
                if points:
                    axis.plot(*zip(*points), style, color=colour, label=f"{side}, {MODES[mode]}", markersize=4)
        axis.set(title={"unet": "U-Net", "decoder": "decoder"}[part], xlabel="side of the picture, pixels", ylabel="peak memory, MiB", ylim=0)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--binary", type=Path, default=ROOT / "target/release/examples/gradient_memory")
    p.add_argument("--unet", type=int, nargs="*", default=(256, 512, 768, 1024, 1280, 1536))
    p.add_argument("--decoder", type=int, nargs="*", default=(256, 512, 768, 1024))
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--plot", type=Path, default=ROOT / "docs/gradient-memory.svg")
    p.add_argument("--threads", type=int, help="threads of both sides; all cores by default. With 1, other processes disturb least")
    p.add_argument("--only", choices=("ours",))
    p.add_argument("--rival", nargs=3, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.threads:
        os.environ |= {name: str(a.threads) for name in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    if a.rival:
        part, pixels, mode = a.rival
        return rival(part, int(pixels), mode, a.rounds)

    memory = {"unet": {}, "decoder": {}}
    for part, sizes in (("unet", a.unet), ("decoder", a.decoder)):
        for pixels in sizes:
            row = memory[part][pixels] = {}
            for mode in MODES:
                case = [part, str(pixels), mode]
                row["lsregen", mode] = measured(timed([a.binary, *case, f"rounds={a.rounds}"])[2])
                if a.only is None:
                    command = [sys.executable, __file__, "--rounds", str(a.rounds), "--rival", *case]
                    row["torch", mode] = measured(timed(command)[2])
            print(part, pixels, row, file=sys.stderr, flush=True)

    for title, index, form in (("peak memory, MiB", 2, "{:.0f}"), ("seconds of the processor", 1, "{:.2f}"), ("seconds", 0, "{:.2f}")):
        print(f"\n{title}\n\n| | pixels | kept | again | ratio | torch, kept | torch, again | ours to torch, kept | again |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|")
        for part, rows in memory.items():
            for pixels, row in rows.items():
                kept, again = (row["lsregen", mode][index] for mode in MODES)
                theirs = [row["torch", mode][index] if ("torch", mode) in row else None for mode in MODES]
                cells = [form.format(v) for v in (kept, again)] + [f"{again / kept:.2f}"]
                cells += [form.format(v) if v else "" for v in theirs]
                cells += [f"{v / w:.2f}" if w else "" for v, w in zip((kept, again), theirs)]
                print(f"| {part} | {pixels} | " + " | ".join(cells) + " |")
    plot(a.plot, memory)

    print()
    for part, rows in memory.items():
        if len(rows) < 2:
            continue
        first, last = rows[min(rows)], rows[max(rows)]
        kept, again = (last["lsregen", mode][2] - first["lsregen", mode][2] for mode in MODES)
        print(f"{part}: from {min(rows)} to {max(rows)} pixels kept grows by {kept:.0f} MiB, again by {again:.0f}: {again / kept:.2f} (at most 0.5)")
        if again > 0.5 * kept:
            sys.exit(f"{part}: too much")


if __name__ == "__main__":
    main()
