"""Times single operations and the same operations in PyTorch, alternately, with the same shapes and all cores. Prints a table of ratios.

Runs src/tensor/benches/ops.rs (criterion) and, in this process, the same operations in torch, round by round, and
compares the smallest medians. --plain also times candle's own form of each operation, which takes a while.

Made with torch 2.15.  usage: ops.py [--rounds 3] [--threads N] [--plain] [FILTER]   (FILTER: a regular expression over names)
"""
import argparse, os, re, statistics, subprocess, time
from pathlib import Path
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[2]


def torch_form(name):
    """Returns torch's form of the operation that a benchmark's name describes; for half-precision weights, torch's in f32."""
    kind, *rest = re.sub("^(half|brain)_", "", name).split(" ")
    ints = [int(i) for i in re.findall(r"\d+", " ".join(rest))]
    if kind == "conv":
        b, c, o, size, k, stride = ints
        x, w, bias = torch.randn(b, c, size, size), torch.randn(o, c, k, k), torch.randn(o)
        return lambda: F.conv2d(x, w, bias, stride=stride, padding=k // 2)
    if kind in ("group_norm", "group_norm_silu"):
        b, c, groups, size = ints
        x, w, bias = torch.randn(b, c, size, size), torch.randn(c), torch.randn(c)
        norm = lambda: F.group_norm(x, groups, w, bias)
        return norm if kind == "group_norm" else lambda: F.silu(norm())
    if kind == "attention":
        b, h, d, n, m = ints
        q, k, v = torch.randn(b, h, n, d), torch.randn(b, h, m, d), torch.randn(b, h, m, d)
        return lambda: F.scaled_dot_product_attention(q, k, v)
    if kind == "linear":
        n, c, o = ints
        x, w, bias = torch.randn(n, c), torch.randn(o, c), torch.randn(o)
        return lambda: F.linear(x, w, bias)
    n, d = ints
    x, w, bias, wide = torch.randn(n, d), torch.randn(d), torch.randn(d), torch.randn(n, 8 * d)

    def geglu():
        value, gate = wide.chunk(2, -1)
        return value * F.gelu(gate)
    return {"layer_norm": lambda: F.layer_norm(x, (d,), w, bias), "silu": lambda: F.silu(x), "geglu": geglu}[kind]


def time_torch(f):
    """Returns the median seconds of a call, over 0.6 s of calls after 0.2 s of warm-up."""
    with torch.inference_mode():
        end, times = time.perf_counter() + .2, []
        while not times or time.perf_counter() < end:
            f()
            times.append(0)
        end, times = time.perf_counter() + .6, []
        while len(times) < 5 or time.perf_counter() < end:
            t = time.perf_counter()
            f()
            times.append(time.perf_counter() - t)
    return statistics.median(times)


def cargo_bench(pattern):
    """Returns the median seconds of the matching benchmarks, by name."""
    out = subprocess.run(["cargo", "bench", "-q", "-p", "lsregen-tensor", "--bench", "ops", "--",
                          "--output-format", "bencher", pattern], cwd=ROOT, capture_output=True, text=True)
    if out.returncode:
        raise SystemExit(out.stderr)
    found = re.findall(r"^test (.+?) \.\.\. bench:\s+([\d,]+) ns/iter", out.stdout, re.M)
    return {name: int(ns.replace(",", "")) * 1e-9 for name, ns in found}


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--rounds", type=int, default=3)
    args.add_argument("--threads", type=int, default=os.cpu_count())
    args.add_argument("--plain", action="store_true")
    args.add_argument("filter", nargs="?", default="")
    a = args.parse_args()
    torch.set_num_threads(a.threads)
    os.environ["RAYON_NUM_THREADS"] = str(a.threads)
    ours, theirs = {}, {}
    for _ in range(a.rounds):
        for name, t in cargo_bench(f"^ops/.*(?:{a.filter})").items():
            name = name.removeprefix("ops/")
            ours[name] = min(t, ours.get(name, t))
            t = time_torch(torch_form(name))
            theirs[name] = min(t, theirs.get(name, t))
    plain = cargo_bench(f"^plain/.*(?:{a.filter})") if a.plain else {}
    print(f"{a.threads} threads, torch {torch.__version__}, the least of {a.rounds} medians, milliseconds\n")
    print("| operation | lsregen | torch | ratio |" + (" candle alone | ratio |" if plain else ""))
    print("|---|--:|--:|--:|" + ("--:|--:|" if plain else ""))
    for name in ours:
        row = f"| {name} | {ours[name] * 1e3:.3f} | {theirs[name] * 1e3:.3f} | {ours[name] / theirs[name]:.2f} |"
        if plain:
            p = plain["plain/" + name]
            row += f" {p * 1e3:.3f} | {p / theirs[name]:.1f} |"
        print(row)


if __name__ == "__main__":
    main()
