"""Times `lsregen check` on each erroneous graph of tests/faults, from process start to exit; the best of several runs each.

usage: check.py [--binary target/release/lsregen] [--runs 5]
"""
import argparse
import statistics
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def seconds(command):
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--binary", type=Path, default=ROOT / "target/release/lsregen")
    p.add_argument("--runs", type=int, default=5)
    a = p.parse_args()
    best = {f.stem: min(seconds([a.binary, "check", f]) for _ in range(a.runs)) for f in sorted((ROOT / "tests/faults").glob("*.yaml"))}
    slowest = max(best, key=best.get)
    print(f"{len(best)} graphs: median {1000 * statistics.median(best.values()):.1f} ms, slowest {1000 * best[slowest]:.1f} ms ({slowest})")


if __name__ == "__main__":
    main()
