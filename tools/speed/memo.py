#!/usr/bin/env python3
"""Compares a cold run with a second process that finds everything cached.

    cargo build --release && python tools/speed/memo.py [--rounds 7]

Times whole processes, start to exit, on graphs/lsregen.yaml: with an empty cache, and again with the cache of that run, in
the same folder, from another working directory, with the nodes renamed, and with the PNG file deleted. No node may run again;
the events are checked for this.

"""

import argparse
import json
import pathlib
import re
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(graph, cache, folder, cwd):
    """Returns the seconds of the process and the nodes that it ran."""
    events = cache.parent / "events.jsonl"
    command = [ROOT / "target/release/lsregen", "run", graph, "--device", "cpu", "--quiet", "--cache-dir", cache]
    command += ["--output-dir", folder, "--events", events]
    start = time.perf_counter()
    subprocess.run(command, check=True, cwd=cwd)
    seconds = time.perf_counter() - start
    started = [json.loads(line) for line in events.read_text().splitlines()]
    return seconds, [event["node"] for event in started if event["event"] == "node_started"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    times = {name: [] for name in ("cold", "again", "from another folder", "nodes renamed", "picture deleted")}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as place:
            place = pathlib.Path(place)
            cache, out, elsewhere = place / "cache", place / "out", place / "elsewhere"
            elsewhere.mkdir()
            graph = ROOT / "graphs/lsregen.yaml"
            renamed = place / "renamed.yaml"
            text = graph.read_text().split("\noutputs:")[0] + "\n"
            for name in ("small", "large", "layout", "up", "z0", "invert", "sample", "image", "save"):
                # The declaration of the node, and the links to it.
                text = re.sub(rf"^  {name}:", f"  {name}_2:", text, flags=re.M)
                text = re.sub(rf"((?:model|image|latent|layout|small): |\[){name}(?=[\s,.\]}}])", rf"\1{name}_2", text)
            renamed.write_text(text)

            seconds, started = run(graph, cache, out, ROOT)
            assert len(started) == 9, started
            times["cold"].append(seconds)
            for name, which, cwd in (
                ("again", graph, ROOT),
                ("from another folder", graph, elsewhere),
                ("nodes renamed", renamed, ROOT),
                ("picture deleted", graph, ROOT),
            ):
                picture = out / "out/lsregen-0001.png"
                if name == "picture deleted":
                    picture.unlink()
                seconds, started = run(which, cache, out, cwd)
                assert started == [] and picture.is_file(), (name, started)
                times[name].append(seconds)
    cold = statistics.median(times["cold"])
    print(f"medians of {rounds} rounds, process start to exit")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:20} {median * 1000:8.1f} ms   ratio to cold {median / cold:.3f}   worst {max(seconds) * 1000:.1f} ms")


if __name__ == "__main__":
    main()
