"""Times the default graph with lsregen and diffusers, alternately, on the same weights in f32 with all cores. Prints ratios.

Whole: wall-clock time from process start to PNG, and the peak resident memory as the system accounts for the finished
process. Sampling: the network calls alone (GLIGEN, inversion, guided sampling), as timed by each side itself.


Made with torch 2.15, diffusers 0.39, transformers 4.57.
usage: speed.py [--binary target/release/lsregen] [--rounds 5]
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GRAPH = ROOT / "graphs/lsregen.yaml"


def timed(command):
    """Returns (wall-clock seconds, peak MiB, output of both streams) of a command that must succeed."""
    with tempfile.TemporaryFile("w+") as log:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        log.seek(0)
        text = log.read()
    if status:
        raise SystemExit(f"{command[0]} failed:\n{text}")
    return seconds, usage.ru_maxrss / 1024, text


def ours(binary, folder):
    seconds, memory, text = timed([binary, "run", GRAPH, "--device", "cpu", "--no-cache", "--output-dir", folder])
    nodes = re.findall(r"^\S+ +(\w+) +([\d.]+) s$", text, re.M)
    sampling = sum(float(s) for kind, s in nodes if kind in ("GLIGENLayout", "Invert", "GuidedSDXLSample"))
    return seconds, memory, sampling


def theirs(folder):
    seconds, memory, text = timed([sys.executable, HERE / "diffusers_run.py", GRAPH, f"{folder}/theirs.png"])
    stages = json.loads(text.splitlines()[-1])
    # GLIGENLayout includes the decoding of its image; the last decoding is a separate node.
    return seconds, memory, stages["gligen"] + stages["invert"] + stages["sample"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--binary", type=Path, default=ROOT / "target/release/lsregen")
    p.add_argument("--rounds", type=int, default=5)
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ours(a.binary, folder), theirs(folder)  # loads the files into the page cache
        rounds = [(ours(a.binary, folder), theirs(folder)) for _ in range(a.rounds)]
    print(f"{'medians of ' + str(a.rounds) + ' rounds':24}{'lsregen':>10}{'diffusers':>12}{'ratio':>9}")
    for i, (name, unit) in enumerate([("whole", "s"), ("peak memory", "MiB"), ("sampling", "s")]):
        mine, other = (statistics.median(r[side][i] for r in rounds) for side in (0, 1))
        ratio = statistics.median(r[0][i] / r[1][i] for r in rounds)
        print(f"{name + ', ' + unit:24}{mine:10.2f}{other:12.2f}{ratio:9.2f}")


if __name__ == "__main__":
    main()
