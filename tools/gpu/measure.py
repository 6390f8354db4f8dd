"""Measures on a GPU and prints one table; called by run.sh. Needs only Python's standard library.

1. graphs/lsregen.yaml on the CPU and on CUDA, both in f32: the relative differences of the two sampled latents.
2. Every graph on the CPU in f32 and on CUDA in f32, f16 and bf16: the differences of the images, of 255 (pictures.py).
3. SDXL at each size on the device: seconds per step (the difference of a long and a short run divided by the difference of
   their steps, which cancels loading, text encoding and decoding), and the peak memory of the device (by nvidia-smi, minus
   the memory in use before).
4. The same with diffusers if it is installed, as it is and compiled; with PyTorch, the throughput of a matrix product and of
   a copy on this device.
5. The ten kernels that take most of the time of four steps of SDXL outside CUDA graphs, by `lsregen run --profile`. The
   program records the U-Net's call in the second step. Later steps replay it as one graph, whose kernels have no times.
"""
import argparse
import array
import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pictures

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BAR = 1e-2  # relative difference of latents, CUDA to CPU
# What computes on the device outside CUDA graphs, by the groups of docs/profile.md. Copies and fills are left out.
COMPUTING = ("kernels", "gemms", "convolutions", "attentions", "operations")


def fail(message):
    sys.exit(f"measure.py: {message}")


def run(command, what):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        fail(f"{what} failed ({done.returncode}):\n  {' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def used():
    """Returns the bytes in use on the first device, or None without nvidia-smi."""
    try:
        text = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"],
                              capture_output=True, text=True, check=True).stdout
        return int(text.split()[0]) << 20
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        return None


class Peak:
    """The peak memory of the device within a `with`, above what was in use before."""

    def __enter__(self):
        self.before, self.most, self.over = used(), 0, threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while self.before is not None and not self.over.wait(0.1):
            self.most = max(self.most, (used() or 0) - self.before)

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def bytes(self):
        return None if self.before is None else self.most


class Program:
    """The lsregen binary."""

    def __init__(self, binary):
        self.binary = binary

    def run(self, graph, device, dtype, out, values=()):
        """Runs a graph and returns the seconds of each node."""
        command = [self.binary, "run", graph, "--device", device, "--dtype", dtype, "--no-cache", "--quiet", "--events",
                   "jsonl", "--output-dir", out]
        for value in values:
            command += ["--set", value]
        events = [json.loads(line) for line in run(command, graph.name).splitlines() if line.startswith("{")]
        return {e["node"]: e["seconds"] for e in events if e["event"] == "node_finished"}


def latent(path):
    """Returns the values of a latent file, which holds one f32 tensor."""
    data = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    entry = json.loads(data[8:8 + length])["latent"]
    first, last = entry["data_offsets"]
    assert entry["dtype"] == "F32", entry
    return array.array("f", data[8 + length:][first:last])


def difference(a, b):
    if len(a) != len(b):
        fail(f"latents of {len(a)} and {len(b)} numbers")
    norm = lambda xs: sum(float(x) ** 2 for x in xs) ** 0.5
    return norm(x - y for x, y in zip(a, b)) / norm(b)


def same_everywhere(program, device, folder):
    """Returns the rows of part 1, the relative difference of each latent, and whether all are small enough."""
    text = (ROOT / "graphs/lsregen.yaml").read_text()
    extra = ("  gpu_small: { type: SaveLatent, latent: layout.latent, path: small.safetensors }\n"
             "  gpu_large: { type: SaveLatent, latent: sample, path: large.safetensors }\n")
    if text.count("\noutputs:") != 1:
        fail("graphs/lsregen.yaml has no `outputs:` to put SaveLatent before")
    graph = folder / "latents.yaml"
    graph.write_text(text.replace("\noutputs:", "\n" + extra + "outputs:"))
    for name in ("cpu", device):
        program.run(graph, name, "f32", folder / f"latents-{name}")
        if name == device == "cpu":
            break
    rows = []
    for which, what in (("small", "GLIGEN"), ("large", "guided SDXL")):
        a, b = (latent(folder / f"latents-{name}/{which}.safetensors") for name in (device, "cpu"))
        d = difference(a, b)
        verdict = "good" if d <= BAR else "TOO FAR"
        rows.append((f"lsregen.yaml, {what}: latents {device} to cpu, f32", f"{d:.1e}", f"≤ {BAR:g}: {verdict}"))
    return rows, all(row[2].endswith("good") for row in rows)


def kernels(a, folder):
    """Returns rows of the kernels that take most of the time of a few steps at the first size."""
    width, height = a.sizes.split(",")[0].split("x")
    trace = folder / "trace.json"
    command = [a.bin, "run", HERE / "sdxl.yaml", "--device", a.device, "--dtype", a.dtype, "--no-cache", "--quiet",
               "--output-dir", folder, "--profile", trace]
    for value in (f"model={os.path.abspath(a.model)}", f"width={width}", f"height={height}", "steps=4"):
        command += ["--set", value]
    run(command, "lsregen run --profile")
    return ranking(json.loads(trace.read_text())["traceEvents"])


def ranking(events):
    """Returns the rows of a trace's kernels. A replayed CUDA graph is one slice, in which kernels have no times of their own."""
    spent, replays = {}, []
    for event in (event for event in events if event["ph"] == "X"):
        if event["cat"] == "graphs":
            replays.append(event["dur"])
        elif event["cat"] in COMPUTING:
            count, time_spent = spent.get(event["name"], (0, 0.0))
            spent[event["name"]] = (count + 1, time_spent + event["dur"])
    outside, inside = sum(t for _, t in spent.values()), sum(replays)
    share = lambda part, whole: f"{part / (whole or 1):.1%}"
    rows = [("SDXL's four steps, encoders and decoder", f"{(outside + inside) / 1e3:.2f} ms", "computing on the device"),
            ("  CUDA graphs", f"{inside / 1e3:.2f} ms",
             f"{share(inside, outside + inside)} of it, {len(replays)} replays; their kernels have no times, and no option turns "
             "recording off")]
    ranked = sorted(spent.items(), key=lambda item: -item[1][1])[:10]
    return rows + [(f"  kernel {name}", f"{t / 1e3:.2f} ms", f"{share(t, outside)} of the kernels outside CUDA graphs, {n} times")
                   for name, (n, t) in ranked]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bin", required=True)
    p.add_argument("--model", required=True, help="a diffusers folder of SDXL")
    p.add_argument("--variant", help="variant of the folder's files, for diffusers, such as fp16")
    p.add_argument("--device", default="cuda")
    p.add_argument("--torch-device", default="cuda", help="PyTorch's device: the CPU beside the software device")
    p.add_argument("--dtype", default="bf16")
    p.add_argument("--sizes", default="1024x1024,1920x1440")
    p.add_argument("--steps", default="4,24")
    p.add_argument("--ceiling", default="8192")
    p.add_argument("--graphs", help="the graphs of part 2, separated by commas; by default all")
    p.add_argument("--python", default=sys.executable, help="a Python with torch and diffusers")
    a = p.parse_args()
    start = time.time()
    program = Program(a.bin)
    few, many = map(int, a.steps.split(","))

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        print("1/5 graphs/lsregen.yaml on both", file=sys.stderr)
        rows, good = same_everywhere(program, a.device, folder)
        print("2/5 every graph in every dtype", file=sys.stderr)
        more, fine = pictures.compare(a.bin, a.device, folder, a.graphs and a.graphs.split(","))
        rows, good = rows + more, good and fine

        ours = {}
        for size in a.sizes.split(","):
            print(f"3/5 {size} by lsregen", file=sys.stderr)
            width, height = size.split("x")
            seconds = {}
            with Peak() as peak:
                for steps in (few, many):
                    values = [f"model={os.path.abspath(a.model)}", f"width={width}", f"height={height}", f"steps={steps}"]
                    nodes = program.run(HERE / "sdxl.yaml", a.device, a.dtype, folder, values)
                    # The device may still be at the last step when sampling returns; decoding waits for it.
                    seconds[steps] = nodes["sample"] + nodes["image"]
            ours[size] = ((seconds[many] - seconds[few]) / (many - few), peak.bytes())

        top = None
        if subprocess.run([a.python, "-c", "import torch"], capture_output=True).returncode == 0:
            command = [a.python, HERE / "ceilings.py", "--device", a.torch_device, "--dtype", a.dtype, "--size", a.ceiling]
            top = json.loads(run(command, "ceilings").splitlines()[-1])
            rows.append((f"{a.ceiling}×{a.ceiling} matrix product {a.dtype}", f"{top['matmul'] / 1e12:.2f} TFLOP/s", "PyTorch's"))
            rows.append(("copy", f"{top['copy'] / 1e9:.0f} GB/s", "PyTorch's"))

        theirs = None
        if subprocess.run([a.python, "-c", "import torch, diffusers, transformers"], capture_output=True).returncode:
            print(f"4/5 left out: {a.python} has no torch, diffusers and transformers", file=sys.stderr)
        else:
            print("4/5 the same by diffusers", file=sys.stderr)
            command = [a.python, HERE / "diffusers_sdxl.py", a.model, "--device", a.torch_device, "--dtype", a.dtype, "--sizes",
                       a.sizes, "--steps", a.steps]
            if a.variant:
                command += ["--variant", a.variant]
            theirs = json.loads(run(command, "diffusers").splitlines()[-1])

        print("5/5 the kernels of four steps", file=sys.stderr)
        slowest = kernels(a, folder)

    gib = lambda n: "—" if n is None else f"{n / 2**30:.2f} GiB"
    for size, (step, peak) in ours.items():
        if step <= 0:
            fail(f"{size}: {many} steps took less time than {few}: something else was running; try again")
        rows.append((f"SDXL {size} {a.dtype}, a step", f"{step * 1e3:.1f} ms", ""))
        rows.append((f"SDXL {size} {a.dtype}, peak memory of the device", gib(peak), ""))
        if theirs:
            other = theirs["sizes"][size]
            s = {int(k): v for k, v in other["seconds"].items()}
            their_step = (s[many] - s[few]) / (many - few)
            rows.append(("  diffusers, a step", f"{their_step * 1e3:.1f} ms", f"lsregen takes {step / their_step:.2f} of it"))
            rows.append(("  diffusers, peak memory", gib(other["peak"]), ""))
            if compiled := other.get("compiled"):
                s = {int(k): v for k, v in compiled.items()}
                their_step = (s[many] - s[few]) / (many - few)
                rows.append(("  diffusers compiled, a step", f"{their_step * 1e3:.1f} ms", f"lsregen takes {step / their_step:.2f} of it"))
            share = other["flops"] / step / top["matmul"]
            rows.append(("  of the measured matrix product", f"{share:.1%}",
                         f"{other['flops'] / 1e12:.3g} TFLOP a step, {top['matmul'] / 1e12:.2f} TFLOP/s"))
            share = theirs["weights"] / step / top["copy"]
            rows.append(("  of the measured copy, weights read once", f"{share:.1%}", f"{top['copy'] / 1e9:.0f} GB/s"))
    rows += slowest
    wide = [max(len(row[i]) for row in rows) for i in range(2)]
    for name, value, remark in rows:
        print(f"{name:{wide[0]}}  {value:>{wide[1]}}  {remark}".rstrip())
    if a.torch_device == "cpu":
        print("Times are those of the software device and of PyTorch on the CPU, not of a GPU.")
    print(f"in {time.time() - start:.0f} s")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
