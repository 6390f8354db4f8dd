"""Layout accuracy of every method with the lsregen binary, compared with a reference run on diffusers' networks.

For each random layout of the shapes world, `lsregen run beside_diffusers.yaml` generates the images of all methods in one run,
and the detector of models/shapes/recipe scores them. Without --ours-only, the reference run
(models/shapes/recipe/reference.py) generates images for the same layouts and seeds and is scored in the same way. The
differences of the scores, and of the images in levels of 255, are printed.


Made with torch 2.15, diffusers 0.39, transformers 4.57, scipy.
usage: beside_diffusers.py --out DIR [--binary target/release/lsregen] [--count 100] [--world-seed 21] [--ours-only]
                   [--cfg 4] [--strength .5] [--window .1]     of the large model, for both sides
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "models/shapes/recipe"))

import numpy as np

from detect import detect
from reference import USUAL, Models, Settings, layouts, run, save
from score import line, read, score, truth


def draw(binary, layout, out, settings):
    """Generates the images of all methods for one layout."""
    values = settings | {"prompt": layout["prompt"], "boxes": layout["boxes"], "seed_small": layout["seed_small"],
              "seed_large": layout["seed_large"], "id": f"{layout['id']:04}"}
    sets = [x for name, value in values.items() for x in ("--set", f"{name}={json.dumps(value)}")]
    subprocess.run([binary, "run", HERE / "beside_diffusers.yaml", "--device", "cpu", "--quiet", "--output-dir", out, *sets], check=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--binary", type=Path, default=ROOT / "target/release/lsregen")
    p.add_argument("--count", type=int, default=100)
    p.add_argument("--world-seed", type=int, default=21)
    p.add_argument("--ours-only", action="store_true")
    p.add_argument("--cfg", type=float, default=4.0)
    p.add_argument("--strength", type=float, default=0.5)
    p.add_argument("--window", type=float, default=0.1)
    a = p.parse_args()
    batch = layouts(a.count, a.world_seed)
    asked = [truth(l) for l in batch]
    ours, theirs = a.out / "lsregen", a.out / "diffusers"

    def pictures(folder, name):
        return [read(folder / name / f"{l['id']:04}.png") for l in batch]

    for layout in batch:
        draw(a.binary, layout, ours, {"cfg": a.cfg, "strength": a.strength, "window": a.window})
    if not a.ours_only:
        for name in USUAL:
            (theirs / name).mkdir(parents=True, exist_ok=True)
        for name, part, made in run(Models(ROOT / "models/shapes"), batch, settings=Settings(cfg_large=a.cfg, w=a.strength, fraction=a.window)):
            for layout, picture in zip(part, made):
                save(picture, theirs / name / f"{layout['id']:04}.png")

    for name in USUAL:
        mine = pictures(ours, name)
        found = [detect(x) for x in mine]
        print(line(name, found, asked), flush=True)
        if not a.ours_only:
            reference = pictures(theirs, name)
            other = [detect(x) for x in reference]
            print(line("  diffusers", other, asked))
            levels = max(np.abs(x - y).max() * 127.5 for x, y in zip(mine, reference))
            apart = abs(score(found, asked)[0] - score(other, asked)[0])
            print(f"  mAP@.5 apart by {apart:.3f}; pictures by at most {levels:.0f} levels of 255", flush=True)


if __name__ == "__main__":
    main()
