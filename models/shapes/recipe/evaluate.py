"""Computes the mAP of each method on random layouts of the shapes world without writing images, and that of the autoencoder alone.

usage: evaluate.py --models models/shapes [--count 100] [--world-seed 21] [--methods ...]
                   and the settings of reference.py
"""
import argparse
import random
import time

import torch

from detect import detect, mean_ap
from reference import METHODS, USUAL, Models, Settings, decode, encode, layouts, run
from score import line, truth
from world import render, sample_scene


@torch.inference_mode()
def ceiling(vae, count, size):
    """Returns the mAP@.5 of the renderer's own images after the autoencoder. No model that uses it can score much higher."""
    rng = random.Random(9)
    scenes = [sample_scene(rng) for _ in range(count)]
    pictures = (render(ground, objs, size, i)[None] for i, (ground, objs) in enumerate(scenes))
    return mean_ap([detect(decode(vae, encode(vae, x))[0].numpy()) for x in pictures], [objs for _, objs in scenes])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--models", required=True, help="folder with gligen/ and xl/")
    p.add_argument("--count", type=int, default=100)
    p.add_argument("--world-seed", type=int, default=21)
    p.add_argument("--methods", nargs="+", default=USUAL, choices=list(METHODS))
    Settings.options(p)
    a = p.parse_args()
    m, batch = Models(a.models), layouts(a.count, a.world_seed)
    for size in (128, 256):
        print(f"autoencoder alone at {size}: mAP@.5 {ceiling(m.vae, 60, size):.3f}", flush=True)
    found, asked, start = {name: [] for name in a.methods}, {name: [] for name in a.methods}, time.time()
    for name, part, pictures in run(m, batch, a.methods, Settings.of(a)):
        found[name] += [detect(x.numpy()) for x in pictures]
        asked[name] += [truth(l) for l in part]
        if part[-1]["id"] + 1 == len(batch) or len(asked[name]) % 20 == 0:
            print(line(name, found[name], asked[name]), f"{time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
