"""Measures the peak throughput of a device by PyTorch, for measure.py: a matrix product and a copy.

usage: ceilings.py --device cuda|cpu --dtype bf16|f16|f32 [--size N]
Prints one JSON line: FLOP/s of the product of two N×N matrices, bytes/s of a copy (reads and writes).
"""
import argparse
import json
import time

import torch

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


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", default="cuda")
    p.add_argument("--dtype", default="bf16", choices=DTYPES)
    p.add_argument("--size", type=int, default=8192)
    a = p.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    print(json.dumps(ceilings(a.device, DTYPES[a.dtype], a.size)))


if __name__ == "__main__":
    main()
