"""Scores images against their layouts with the detector of the shapes world.

usage: score.py layouts.json FOLDER...       prints a line per folder of <id>.png: mAP at IoU .5 and .75, objects found / asked
"""
import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from detect import detect, mean_ap


def truth(layout):
    """Returns (color, shape, box) of each object in the layout; phrases are "a <color> <shape>"."""
    return [(*b["phrase"].split()[1:3], tuple(b["box"])) for b in layout["boxes"]]


def score(found, asked):
    """Returns mAP@.5, mAP@.75 and the ratio of objects found to objects asked for."""
    return mean_ap(found, asked), mean_ap(found, asked, 0.75), sum(map(len, found)) / sum(map(len, asked))


def line(name, found, asked):
    ap50, ap75, ratio = score(found, asked)
    return f"{name:28} mAP@.5 {ap50:.3f}  mAP@.75 {ap75:.3f}  objects found / asked {ratio:.2f}  ({len(asked)} layouts)"


def read(path):
    return np.asarray(Image.open(path).convert("RGB"), np.float32).transpose(2, 0, 1) / 127.5 - 1


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("layouts", type=Path)
    p.add_argument("folders", type=Path, nargs="+")
    a = p.parse_args()
    batch = json.loads(a.layouts.read_text())
    for folder in a.folders:
        paths = {l["id"]: next((f for f in (folder / f"{l['id']:04}.png", folder / f"{l['id']}.png") if f.exists()), None) for l in batch}
        missing = [i for i, f in paths.items() if f is None]
        if missing:
            raise SystemExit(f"{folder}: no image for layouts {missing[:10]}{'…' if len(missing) > 10 else ''}")
        print(line(folder.name, [detect(read(paths[l["id"]])) for l in batch], [truth(l) for l in batch]))


if __name__ == "__main__":
    main()
