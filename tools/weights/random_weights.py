"""Reproducible random weights, and safetensors files that are written one tensor at a time.

A tensor depends only on a seed, its component and its name in diffusers' layout. Files of every format therefore contain the
same values without being converted from one another, and at most one tensor is in memory.

The values are scaled so that activations keep their order of magnitude through the network: matrices by their fan-in, with
half the gain at the end of a residual branch; norms near 1; small biases. Half precision then neither overflows nor underflows.

"""
import hashlib
import json
import struct
from dataclasses import dataclass
from typing import Callable

import numpy as np

SEED = 4
# Whether files get their header and their size only: the numbers are a hole, which reads as zeros and takes no space.
SPARSE = False
# The ends of residual branches: a smaller gain keeps the sum from growing with the depth.
BRANCH_ENDS = ("conv2.weight", "to_out.0.weight", "ff.net.2.weight", "proj_out.weight", "out_proj.weight", "fc2.weight")


def tensor(component, name, shape):
    """Returns the tensor of that name in f32. `component` is for example `sd1/unet`."""
    digest = hashlib.blake2b(f"{SEED}/{component}/{name}".encode(), digest_size=8).digest()
    rng = np.random.Generator(np.random.SFC64(int.from_bytes(digest, "little")))
    x = rng.standard_normal(shape, dtype=np.float32) if shape else np.asarray(rng.standard_normal(), np.float32)
    if ".alpha_" in name:
        return np.float32(0.5) + np.float32(0.1) * x
    if name.endswith(".bias"):
        return np.float32(0.05) * x
    if len(shape) == 1:
        return x if ".null_" in name else 1 + np.float32(0.1) * x
    if "embedding.weight" in name:  # embeddings of tokens and positions are looked up, not multiplied
        return x if "token" in name else np.float32(0.5) * x
    gain = 0.5 if name.endswith(BRANCH_ENDS) else 1.0
    x *= np.float32(gain / np.sqrt(np.prod(shape[1:])))
    return x


@dataclass
class Entry:
    """A tensor of a file: its name and shape in the file, and the function that makes it (f32, or integers that are kept)."""
    name: str
    shape: tuple
    make: Callable
    dtype: np.dtype

    def value(self):
        x = np.ascontiguousarray(self.make(), dtype=self.dtype).reshape(self.shape)
        return x

    def bytes(self):
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


NAMES = {"f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32"}


def write_safetensors(path, entries):
    """Writes the entries in order, with one in memory at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for e in entries:
        header[e.name] = {"dtype": NAMES[e.dtype.str[1:]], "shape": list(e.shape), "data_offsets": [at, at + e.bytes()]}
        at += e.bytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        if SPARSE:
            f.truncate(8 + len(text) + at)
            return
        for e in entries:
            f.write(e.value().data)


def write_sharded(folder, stem, entries, largest):
    """Writes shards of at most `largest` bytes and their index."""
    shards = [[]]
    for e in entries:
        if shards[-1] and sum(x.bytes() for x in shards[-1]) + e.bytes() > largest:
            shards.append([])
        shards[-1].append(e)
    names = [f"{stem}-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    for name, shard in zip(names, shards):
        write_safetensors(folder / name, shard)
    index = {"metadata": {"total_size": sum(e.bytes() for e in entries)},
             "weight_map": {e.name: name for name, shard in zip(names, shards) for e in shard}}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def state_dict(entries):
    """Returns the entries as torch tensors, all in memory, for pickles."""
    import torch
    return {e.name: torch.from_numpy(e.value()) for e in entries}
