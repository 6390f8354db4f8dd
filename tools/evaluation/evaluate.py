"""Layout accuracy and image quality of LSReGen, its settings and other methods, on the built-in world.

For each layout, `lsregen run` runs one graph that contains all methods (methods.py), so that shared results are computed
once. Half of the layouts have one object, the other half two or three. Images are scored by the detector of
models/shapes/recipe and by their distance to the renderer's own images (quality.py). Existing images are neither generated
nor scored again.

Defaults are chosen on the set `tune` and reported on the set `test`, which has other layouts and seeds.


Made with torch 2.15, numpy 2.4, scipy, pillow.
usage: evaluate.py --out DIR [--set test] [--count 100] [--methods rivals grid around others further samplers] [--around .5 .2 ddim]
                   [--binary target/release/lsregen] [--workers 2]
Writes DIR/<set>/layouts.json, DIR/<set>/pictures/<method>/<id>.png, DIR/<set>/results.json, and prints a table.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "models/shapes/recipe"))

import numpy as np
from PIL import Image

import methods
from detect import detect, mean_ap
from quality import SIZE, Quality
from score import truth
from world import caption, render, sample_scene

WORLDS = {"test": 21, "tune": 77}  # their seeds; the seed of the reference images is 5
REFERENCES = 400


def scenes(count, seed):
    """Returns scenes of the world's own distribution, alternately with one object and with more."""
    rng, kept = random.Random(seed), ([], [])
    while min(map(len, kept)) < (count + 1) // 2:
        ground, objs = sample_scene(rng)
        kept[len(objs) > 1].append((ground, objs))
    return [scene for pair in zip(*kept) for scene in pair][:count]


def layouts(count, seed):
    """Returns the layouts of these scenes in the form of models/shapes/recipe/reference.py, each with its own seeds."""
    out = []
    for i, (ground, objs) in enumerate(scenes(count, seed)):
        boxes = [{"phrase": f"a {color} {shape}", "box": list(box)} for color, shape, box in objs]
        at = 2 * (1000 * seed + i)
        out.append({"id": i, "prompt": caption(ground, objs), "ground": ground, "seed_small": at, "seed_large": at + 1, "boxes": boxes})
    return out


# ---- Generating ----


def usable(binary, wanted):
    """Returns the methods whose nodes the binary has, by checking a graph of each."""
    boxes = [{"phrase": "a red circle", "box": [0.2, 0.2, 0.6, 0.6]}]
    layout = {"id": 0, "prompt": "a red circle on sand", "seed_small": 0, "seed_large": 0, "boxes": boxes}

    def fault(item):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "graph.yaml"
            path.write_text(methods.graph(layout, dict([item])).text())
            run = subprocess.run([binary, "check", path], capture_output=True, text=True)
            return run.stderr.strip() or run.stdout.strip() if run.returncode else None

    with ThreadPoolExecutor(2) as pool:
        faults = dict(zip(wanted, pool.map(fault, wanted.items())))
    for name, text in faults.items():
        if text:
            print(f"left out: {name}: {text.splitlines()[0]}", flush=True)
    return {name: nodes for name, nodes in wanted.items() if not faults[name]}


def draw(binary, layout, wanted, folder):
    """Generates the missing images of a layout. A method that fails leaves its error in `<id>.failed`."""
    place = lambda name, kind: folder / "pictures" / name / f"{layout['id']:04}.{kind}"
    done = lambda name: place(name, "png").exists() or place(name, "failed").exists()
    missing = {name: nodes for name, nodes in wanted.items() if not done(name)}
    if not missing:
        return
    graph, began = methods.graph(layout, missing), time.time()
    path, events = folder / "graphs" / f"{layout['id']:04}.yaml", folder / "graphs" / f"{layout['id']:04}.jsonl"
    path.write_text(graph.text())
    command = [binary, "run", path, "--device", "cpu", "--no-cache", "--no-metadata", "--quiet"]
    command += ["--output-dir", folder / "pictures", "--events", events]
    run = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"RAYON_NUM_THREADS": "1"})
    told = [json.loads(line) for line in events.read_text().splitlines()]
    seconds = {e["node"]: e["seconds"] for e in told if e["event"] == "node_finished"}
    errors = {e["node"]: e["error"] for e in told if e["event"] == "failed"}
    if run.returncode and not errors:
        raise SystemExit(f"{path}: {run.stderr}")
    costs = {}
    for name in missing:
        needed = graph.needed(name)
        if place(name, "png").exists():
            costs[name] = sum(seconds.get(n, 0) for n in needed)
        else:
            place(name, "failed").write_text("\n".join(str(errors[n]) for n in needed if n in errors) or "no picture")
            print(f"{name}, layout {layout['id']}: {place(name, 'failed').read_text()[:300]}", flush=True)
    with (folder / "seconds.jsonl").open("a") as file:
        file.write(json.dumps({"id": layout["id"], "wall": time.time() - began, "seconds": costs}) + "\n")


def draw_all(binary, batch, wanted, folder, workers):
    for name in wanted:
        (folder / "pictures" / name).mkdir(parents=True, exist_ok=True)
    (folder / "graphs").mkdir(exist_ok=True)
    began = time.time()
    with ThreadPoolExecutor(workers) as pool:
        for i, _ in enumerate(pool.map(lambda layout: draw(binary, layout, wanted, folder), batch), 1):
            if i % 10 == 0:
                print(f"{i} layouts, {time.time() - began:.0f} s", flush=True)


# ---- Scoring ----


def read(path):
    """Returns the input of the detector: (3, H, W) in [-1, 1], at the image's own size."""
    return np.asarray(Image.open(path).convert("RGB"), np.float32).transpose(2, 0, 1) / 127.5 - 1


def enlarged(path):
    """Returns (3, 256, 256): small images are enlarged before their quality is measured."""
    image = Image.open(path).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32).transpose(2, 0, 1) / 127.5 - 1


def look(folder, batch, measure):
    """Scores a method's images: {"found": {id: detections}, "quality": a value per level, over the counted images}."""
    kept = folder / "seen.json"
    seen = json.loads(kept.read_text()) if kept.exists() else {"found": {}, "counted": [], "quality": []}
    paths = {layout["id"]: path for layout in batch if (path := folder / f"{layout['id']:04}.png").exists()}
    for i, path in paths.items():
        if str(i) not in seen["found"]:
            seen["found"][str(i)] = detect(read(path))
    if paths and seen["counted"] != list(paths):
        seen |= {"counted": list(paths), "quality": measure([enlarged(path) for path in paths.values()])}
    kept.write_text(json.dumps(seen))
    return seen


PARTS = {"one": lambda n: n == 1, "more": lambda n: n > 1, "all": lambda n: True}  # by number of objects


def accuracy(found, asked):
    """Returns the scores of one set, and the mAP@.5 of its bootstrap samples. All methods share the same samples, so that differences can be judged."""
    rng, draws = random.Random(0), []
    for _ in range(100):
        at = [rng.randrange(len(asked)) for _ in asked]
        draws.append(mean_ap([found[i] for i in at], [asked[i] for i in at]))
    ratio = sum(map(len, found)) / sum(map(len, asked))
    return {"map50": mean_ap(found, asked), "map75": mean_ap(found, asked, 0.75), "found_per_asked": ratio, "layouts": len(asked), "draws": draws}


def judge(folder, batch, measure):
    """Returns all scores of a method. A failed image counts as one without objects."""
    seen = look(folder, batch, measure)
    found = {i: [(c, s, tuple(box), score) for c, s, box, score in dets] for i, dets in seen["found"].items()}
    out = {"pictures": len(seen["counted"]), "quality": None, "quality_by_level": seen["quality"]}
    if seen["quality"]:
        out["quality"] = float(np.mean(seen["quality"]))
    for name, holds in PARTS.items():
        part = [layout for layout in batch if holds(len(layout["boxes"]))]
        if part:
            out[name] = accuracy([found.get(str(layout["id"]), []) for layout in part], [truth(layout) for layout in part])
    return out


MEASURE = None


def prepare():
    global MEASURE
    MEASURE = Quality([render(ground, objs, SIZE, 5000 + i).numpy() for i, (ground, objs) in enumerate(scenes(REFERENCES, 5))])


def judge_one(job):
    return judge(*job, MEASURE)


def judge_all(folder, batch, names, workers):
    """Returns the scores of each method, after those of the renderer's own images of the same layouts."""
    renderer = folder / "pictures" / "renderer"
    renderer.mkdir(parents=True, exist_ok=True)
    for layout in batch:
        path = renderer / f"{layout['id']:04}.png"
        if not path.exists():
            pixels = render(layout["ground"], truth(layout), SIZE, layout["seed_large"])
            Image.fromarray(((pixels.permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8)).save(path)
    names = ["renderer", *names]
    with ProcessPoolExecutor(workers, initializer=prepare) as pool:
        return dict(zip(names, pool.map(judge_one, [(folder / "pictures" / name, batch) for name in names])))


def seconds(folder):
    """Returns the median seconds per image of each method on one core, including everything that it needs except loading models."""
    path, times = folder / "seconds.jsonl", {}
    for line in path.read_text().splitlines() if path.exists() else []:
        for name, value in json.loads(line)["seconds"].items():
            times.setdefault(name, []).append(value)
    return {name: float(np.median(values)) for name, values in times.items()}


def compare(results):
    """Adds standard errors, and how far each method is behind the best LSReGen in mAP@.5 over all layouts."""
    best = max((name for name in results if name.startswith("lsregen")), key=lambda name: results[name]["all"]["map50"], default=None)
    draws = {name: {part: np.array(r[part].pop("draws")) for part in PARTS if part in r} for name, r in results.items()}
    for name, r in results.items():
        for part, values in draws[name].items():
            r[part]["error50"] = float(values.std())
        if best:
            behind = results[best]["all"]["map50"] - r["all"]["map50"]
            r["behind"] = {"of": best, "map50": behind, "error50": float((draws[best]["all"] - draws[name]["all"]).std())}
    return best


def table(results):
    """Returns a Markdown table with one line per method."""
    lines = ["| method | mAP@.5, one object | mAP@.5, two or three | found / asked | quality ↓ | seconds |", "|---|--:|--:|--:|--:|--:|"]
    for name, r in results.items():
        cell = lambda part: f"{r[part]['map50']:.3f} ± {r[part]['error50']:.3f}" if part in r else ""
        quality = "" if r["quality"] is None else f"{r['quality']:.0f}"
        took = f"{r['seconds']:.1f}" if r["seconds"] else ""
        lines.append(f"| {name} | {cell('one')} | {cell('more')} | {r['all']['found_per_asked']:.2f} | {quality} | {took} |")
    return "\n".join(lines)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--set", choices=list(WORLDS), default="test")
    p.add_argument("--count", type=int, default=100)
    p.add_argument("--methods", nargs="+", choices=["rivals", "grid", "around", "others", "further", "samplers"], default=["rivals", "grid", "around"])
    p.add_argument("--around", nargs=3, metavar=("W", "FRACTION", "MODE"), default=list(methods.BEST))
    p.add_argument("--binary", type=Path, default=ROOT / "target/release/lsregen")
    p.add_argument("--workers", type=int, default=2)
    a = p.parse_args()
    at = (float(a.around[0]), float(a.around[1]), a.around[2])
    groups = {"rivals": methods.RIVALS, "grid": methods.GRID, "around": methods.around(*at), "others": methods.others(*at)}
    groups |= {"further": methods.further(), "samplers": methods.samplers()}
    wanted = usable(a.binary, {name: nodes for group in a.methods for name, nodes in groups[group].items()})
    folder, batch = a.out / a.set, layouts(a.count, WORLDS[a.set])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "layouts.json").write_text(json.dumps(batch, indent=1) + "\n")
    draw_all(a.binary, batch, wanted, folder, a.workers)
    results, times = judge_all(folder, batch, list(wanted), a.workers), seconds(folder)
    for name in results:
        results[name]["seconds"] = times.get(name)
    best = compare(results)
    told = {"set": a.set, "world_seed": WORLDS[a.set], "layouts": len(batch), "best": best}
    told |= {"cfg_small": methods.CFG_SMALL, "cfg_large": methods.CFG_LARGE, "results": results}
    (folder / "results.json").write_text(json.dumps(told, indent=1) + "\n")
    print(table(results))
    if best:
        near = [n for n, r in results.items() if n != best and abs(r["behind"]["map50"]) <= 2 * r["behind"]["error50"]]
        print(f"\nLSReGen's best over all layouts: {best}, mAP@.5 {results[best]['all']['map50']:.3f}. Within two standard errors of it: {', '.join(near)}")


if __name__ == "__main__":
    main()
