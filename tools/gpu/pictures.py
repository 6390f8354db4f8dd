"""Compares the images of every graph on a device, in every dtype, with those of the CPU; for measure.py.

Needs Python's standard library only.
"""
import struct
import subprocess
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# How far the images of a dtype may be from the CPU's in f32: at most in one number, and on average, of 255. These are the
# limits of tests/cuda/main.rs, and so are the graphs that amplify rounding, with their mean in half precision.
LIMITS = {"f32": (2, 0.05), "f16": (255, 2.0), "bf16": (255, 6.0)}
AMPLIFYING = {"boxdiff.yaml", "onnx.yaml"}
AMPLIFIED = 60.0


def pixels(path):
    """Returns the numbers of a PNG file with 8 bits a channel, without interlacing, as lsregen writes them."""
    data = Path(path).read_bytes()
    at, packed = 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        if kind == b"IHDR":
            width, _, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            assert depth == 8 and not interlaced, path
            channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
        elif kind == b"IDAT":
            packed += body
        at += 12 + length
    raw, stride = zlib.decompress(packed), width * channels
    lines, before = [], bytes(stride)
    for start in range(0, len(raw), stride + 1):
        line = bytearray(raw[start + 1:start + 1 + stride])
        unfilter(raw[start], line, before, channels)
        lines.append(bytes(line))
        before = line
    return b"".join(lines)


def unfilter(kind, line, above, channels):
    """Undoes a filter of the PNG specification (section 9.2) in place."""
    for i in range(len(line)):
        left = line[i - channels] if i >= channels else 0
        corner = above[i - channels] if i >= channels else 0
        if kind == 1:
            guess = left
        elif kind == 2:
            guess = above[i]
        elif kind == 3:
            guess = (left + above[i]) // 2
        elif kind == 4:
            p = left + above[i] - corner
            _, _, guess = min((abs(p - x), n, x) for n, x in enumerate((left, above[i], corner)))
        else:
            return
        line[i] = (line[i] + guess) & 255


def run(binary, graph, device, dtype, out):
    """Runs a graph with few steps. Returns its images by name, or what it printed if it failed."""
    steps = ["few=2", "some=3", "many=4"] if graph.stem == "ablation-steps" else ["steps=3"]
    command = [binary, "run", graph, "--device", device, "--dtype", dtype, "--no-cache", "--quiet", "--output-dir", out]
    done = subprocess.run([str(c) for c in command + [x for s in steps for x in ("--set", s)]], capture_output=True, text=True)
    if done.returncode:
        return done.stderr[-600:]
    return {path.name: pixels(path) for path in sorted(out.rglob("*.png"))}


def apart(a, b):
    """Returns the largest and the mean difference of two sets of images."""
    if a.keys() != b.keys() or not a:
        return None
    worst, mean = 0, 0.0
    for name in a:
        differences = [abs(x - y) for x, y in zip(a[name], b[name], strict=True)]
        worst, mean = max(worst, max(differences)), max(mean, sum(differences) / len(differences))
    return worst, mean


def compare(binary, device, folder, graphs=None, workers=4):
    """Returns the rows of the table (graph and dtype, difference, verdict), and whether all are within their limits."""
    graphs = [ROOT / g for g in graphs] if graphs else sorted((ROOT / "graphs").glob("*.yaml"))
    jobs = [(g, "cpu", "f32") for g in graphs] + [(g, device, dtype) for g in graphs for dtype in LIMITS]
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(lambda job: run(binary, *job, folder / f"{job[0].stem}-{job[1]}-{job[2]}"), jobs)
        results = dict(zip(jobs, found))
    rows, good = [("images: the largest (mean) difference from the CPU in f32, of 255", "", "")], True
    for graph in graphs:
        exact = results[graph, "cpu", "f32"]
        for dtype, (most, mean) in LIMITS.items():
            if dtype != "f32" and graph.name in AMPLIFYING:
                mean = AMPLIFIED
            other = results[graph, device, dtype]
            failed = next((r for r in (exact, other) if isinstance(r, str)), None)
            far = None if failed else apart(exact, other)
            fine = far is not None and far[0] <= most and far[1] <= mean
            value = f"{far[0]} ({far[1]:.2f})" if far else "fails"
            rows.append((f"graphs/{graph.name} {dtype}", value, "good" if fine else f"NOT GOOD {failed or ''}".strip()))
            good &= fine
    return rows, good
