"""Makes checkpoints of full size with random weights in each common format, and compares lsregen with diffusers on them.

    full_size.py --make KIND DIR            writes one kind to DIR, or all of a family (sd1, gligen, sdxl, sd2, …) to DIR/KIND
    full_size.py --check KIND DIR           loads the files with diffusers and compares every tensor bit for bit
    full_size.py --compare [KIND…] --bin COMMAND --dir DIR [--dtypes f32,bf16]
    full_size.py --list

--make compares every name and shape with lists of the public checkpoints (`--keys`).

--compare takes one kind after the other. It makes the files; checks them with diffusers; computes the outputs of U-Net,
autoencoder and text encoders on fixed random inputs, with diffusers (on the diffusers folder of the same weights) and with
COMMAND; prints errors, size, time and peak memory; and deletes the files. COMMAND is our probe
(`cargo build --release -p lsregen-diffusion --example probe` builds target/release/examples/probe; the memory is that of the
started process), or `diffusers_probe.py`, to test this script. Errors are ‖ours − theirs‖ / ‖theirs‖ with theirs in f32: the
largest over all outputs, and that of the U-Net. Aims: 1e-4 for f32, 2e-2 for bf16 and f16. `by itself` is diffusers' own error
in that dtype. `to folder` is the error relative to our own output on the folder.

`equal` is the number of tensors that diffusers loads with the intended values. Where diffusers cannot load a kind itself, its
parts are used: its conversions run on GLIGEN's own pickle and on the pruned file, whose formats it does not read; pickles with
classes of other packages (foreign.py), which it refuses, are read by torch.


--make needs numpy for a folder of SD 1, GLIGEN or SDXL; everything else torch 2.15, diffusers 0.39, transformers 4.57; no network. Disk: 14 GB for SDXL in f32, 7 GB in f16, at most 12 GB for the
others. Memory: 8 GiB to check SDXL, 11 GiB to compute with it in f32 (its weights are mapped), at most 6 GiB for the others.
"""
import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

import configs
import foreign
import original
import random_weights
from random_weights import Entry, state_dict, tensor, write_safetensors, write_sharded

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
F32, F16, I64, I32 = (np.dtype(t) for t in ("<f4", "<f2", "<i8", "<i4"))
AIMS = {"f32": 1e-4, "bf16": 2e-2, "f16": 2e-2}


@dataclass
class Kind:
    """A format of a checkpoint. `base` is the diffusers folder of the same weights."""
    name: str
    family: str
    half: bool
    base: str
    form: str
    refused: str = ""  # why our program should refuse it, if it should
    foreign: bool = False  # whether a pickle contains objects of other packages, as public ones do

    def dtype(self):
        return F16 if self.half else F32


KINDS = {k.name: k for k in [
    Kind("sd1-fp32", "sd1", False, "sd1-fp32", "folder"),
    Kind("sd1-sharded", "sd1", False, "sd1-fp32", "sharded"),
    Kind("sd1-bin", "sd1", False, "sd1-fp32", "bin"),
    Kind("sd1-single", "sd1", False, "sd1-fp32", "single"),
    Kind("sd1-ckpt", "sd1", False, "sd1-fp32", "ckpt"),
    Kind("sd1-fp16", "sd1", True, "sd1-fp16", "folder"),
    Kind("sd1-single-fp16", "sd1", True, "sd1-fp16", "single"),
    Kind("sd1-ckpt-fp16", "sd1", True, "sd1-fp16", "ckpt"),
    Kind("sd1-ckpt-lightning", "sd1", True, "sd1-fp16", "ckpt", foreign=True),
    Kind("gligen-folder", "gligen", False, "gligen-folder", "folder"),
    Kind("gligen-bin", "gligen", False, "gligen-folder", "bin"),
    Kind("gligen-original", "gligen", False, "gligen-folder", "gligen-original"),
    Kind("gligen-original-omegaconf", "gligen", False, "gligen-folder", "gligen-original", foreign=True),
    Kind("gligen-folder-fp16", "gligen", True, "gligen-folder-fp16", "folder"),
    Kind("gligen-pruned", "gligen", True, "gligen-folder-fp16", "pruned"),
    Kind("gligen-nofusers", "gligen", True, "gligen-folder-fp16", "folder", refused="no fusers"),
    Kind("sdxl-fp32", "sdxl", False, "sdxl-fp32", "folder"),
    Kind("sdxl-sharded", "sdxl", False, "sdxl-fp32", "sharded"),
    Kind("sdxl-fp16", "sdxl", True, "sdxl-fp16", "folder"),
    Kind("sdxl-single", "sdxl", True, "sdxl-fp16", "single"),
    Kind("sd2-fp16", "sd2", True, "sd2-fp16", "folder"),
    Kind("sd2-single", "sd2", True, "sd2-fp16", "single"),
    Kind("refiner-fp16", "refiner", True, "refiner-fp16", "folder"),
    Kind("refiner-single", "refiner", True, "refiner-fp16", "single"),
    Kind("ssd1b-fp16", "ssd1b", True, "ssd1b-fp16", "folder"),
    Kind("ssd1b-single", "ssd1b", True, "ssd1b-fp16", "single"),
    Kind("vega-fp16", "vega", True, "vega-fp16", "folder"),
    Kind("vega-single", "vega", True, "vega-fp16", "single"),
    Kind("vae-fix", "sdxl", False, "vae-fix", "vae"),
]}


# ---- the contents of a file

@cache
def shapes(family, component):
    return configs.shapes(family, component)


def is_xl(family):
    return "text_encoder_2" in configs.FAMILIES[family]


def source(family, component):
    """Returns the name that seeds a component's weights. GLIGEN contains those of Stable Diffusion 1.4."""
    return f"{'sd1' if family == 'gligen' else family}/{component}"


def renamed(family, component, names, dtype, prefix="", drawn=None):
    """Yields the entries of a component under the names that `names` (of original.py) maps them to."""
    of = shapes(family, component)
    drawn = drawn or source(family, component)
    for name, parts, join in names(list(of)):
        make = lambda parts=parts, join=join: join(*(tensor(drawn, p, of[p]) for p in parts))
        # The shape after joining, computed on broadcast arrays that need no memory.
        shape = join(*(np.broadcast_to(np.float32(0), of[p]) for p in parts)).shape
        yield Entry(prefix + name, shape, make, dtype)


def plain(family, component, dtype, drawn=None):
    return list(renamed(family, component, original.clip, dtype, drawn=drawn))


def constant(name, value, dtype=F32):
    value = np.asarray(value)
    return Entry(name, value.shape, lambda: value, dtype)


def positions(prefix):
    return constant(f"{prefix}text_model.embeddings.position_ids", np.arange(77)[None], I64)


def is_grounding(name):
    """Returns whether a tensor is one of those that GLIGEN adds."""
    return ".fuser." in name or name.startswith("position_net.")


def single_file(family, dtype):
    """Returns all entries of a checkpoint in the original layout."""
    def part(component, names, prefix):
        return list(renamed(family, component, names, dtype, prefix))
    entries = part("unet", original.unet, "model.diffusion_model.") + part("vae", original.vae, "first_stage_model.")
    if family == "refiner":
        alone = "conditioner.embedders.0.model."
        return entries + part("text_encoder_2", original.open_clip, alone) + [constant(f"{alone}logit_scale", 4.6055, dtype)]
    if family == "sd2":
        text = "cond_stage_model.model."
        whole = renamed("sd2-file", "text_encoder", original.open_clip, dtype, text, source("sd2", "text_encoder"))
        return entries + list(whole) + [constant(f"{text}logit_scale", 4.6055, dtype)]
    if is_xl(family):
        first, second = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
        return entries + part("text_encoder", original.clip, first) + [positions(first)] + \
            part("text_encoder_2", original.open_clip, second) + [constant(f"{second}logit_scale", 4.6055, dtype)]
    buffers = [constant(n, v) for n, v in original.schedule_buffers().items()]
    ema = [constant("model_ema.decay", 0.9999), constant("model_ema.num_updates", 470000, I32)]
    text = "cond_stage_model.transformer."
    return buffers + entries + [positions(text)] + part("text_encoder", original.clip, text) + ema


# ---- writing

def make(kind, folder):
    """Writes a kind; returns the options with which a program loads it."""
    folder.mkdir(parents=True, exist_ok=True)
    family, dtype = kind.family, kind.dtype()
    if kind.form in ("folder", "sharded", "bin"):
        configs.write_configs(folder, family)
        for component in configs.components(family):
            make_component(kind, component, folder / component)
        return ["--model", folder]
    if kind.form == "single":
        path = folder / ({"sd1": f"v1-4{'-fp16' if kind.half else ''}", "sdxl": "sd_xl_base_1.0"}.get(family, family) + ".safetensors")
        write_safetensors(path, single_file(family, dtype))
        return ["--model", path]
    if kind.form == "pruned":
        path = folder / "gligen_sd14_textbox_pruned_fp16.safetensors"
        write_safetensors(path, [e for e in renamed(family, "unet", original.unet, dtype) if is_grounding(e.name)])
        return ["--gligen", path]
    if kind.form == "vae":
        tag = "sdxl/vae-fix"
        configs.write_json(folder / "folder/config.json", configs.FIX_VAE)
        write_safetensors(folder / "folder/diffusion_pytorch_model.safetensors", plain(family, "vae", dtype, tag))
        write_safetensors(folder / "sdxl_vae.safetensors", list(renamed(family, "vae", original.vae, dtype, drawn=tag)))
        return ["--vae", folder / "folder", folder / "sdxl_vae.safetensors"]
    import torch
    if kind.form == "ckpt":
        path = folder / f"v1-4{'-fp16' if kind.half else ''}.ckpt"
        beside = foreign.lightning() if kind.foreign else {"global_step": 470000, "epoch": 23}
        torch.save({"state_dict": state_dict(single_file(family, dtype))} | beside, path)
        return ["--model", path]
    if kind.form == "gligen-original":
        path = folder / "diffusion_pytorch_model.bin"
        text = list(renamed(family, "text_encoder", original.clip, dtype, "transformer.")) + [positions("transformer.")]
        config = {"model": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": {"image_size": 64, "fuser_type": "gatedSA"}}}
        torch.save({
            "model": state_dict(renamed(family, "unet", original.unet, dtype)),
            "autoencoder": state_dict(renamed(family, "vae", original.vae, dtype)),
            "text_encoder": state_dict(text),
            "diffusion": state_dict(constant(n, v) for n, v in original.schedule_buffers().items()),
            "config_dict": foreign.omegaconf(config) if kind.foreign else {"_content": config},
        }, path)
        return ["--model", path]
    raise ValueError(kind.form)


def make_component(kind, component, folder):
    """Writes the weights of one folder of a diffusers repository."""
    text = component.startswith("text_encoder")
    stem = ("pytorch_model" if kind.form == "bin" else "model") if text else "diffusion_pytorch_model"
    entries = plain(kind.family, component, kind.dtype())
    if kind.refused:
        entries = [e for e in entries if not is_grounding(e.name)]
    if kind.form == "bin":
        import torch
        if component == "vae":  # the layout of these old repositories
            entries = list(renamed(kind.family, component, original.vae_of_old_folder, kind.dtype()))
        torch.save(state_dict(entries + ([positions("")] if text else [])), folder / f"{stem}.bin")
    elif kind.form == "sharded" and component == "unet":
        write_sharded(folder, stem, entries, 5_000_000_000 if kind.family == "sdxl" else 1_000_000_000)
    else:
        write_safetensors(folder / f"{stem}{'.fp16' if kind.half else ''}.safetensors", entries)


def check_keys(family, keys):
    """Compares names and shapes with the lists of the public checkpoints. Returns the lines to print."""
    lines = []
    for component, file in configs.KEYS[family].items():
        listed = {n: tuple(s) for n, s in json.loads((keys / f"{file}.json").read_text()).items()}
        ours = shapes(family, component)
        wrong = sorted(n for n in listed.keys() | ours.keys() if listed.get(n) != ours.get(n))
        if wrong:
            raise SystemExit(f"{family}/{component} differs from {file}.json in {len(wrong)} tensors: {', '.join(wrong[:5])} …")
        lines.append(f"{family}/{component}: {len(ours)} names and shapes as in {file}.json")
    return lines


# ---- checking with diffusers

def check(kind, folder):
    """Loads a kind with diffusers and compares each tensor with its intended values. Returns how many were equal."""
    import torch
    folder, family = Path(folder), kind.family
    known = lambda component, drawn=None: {n: (drawn or source(family, component), n, s) for n, s in shapes(family, component).items()}

    def equal(state, expected):
        """Counts equal tensors; exits at a different one. Buffers such as positions may be missing."""
        for name, (drawn, original_name, shape) in expected.items():
            want = torch.from_numpy(np.ascontiguousarray(tensor(drawn, original_name, shape), dtype=kind.dtype()).reshape(shape))
            got = state.get(name)
            if got is None or got.shape != want.shape or got.dtype != want.dtype or not torch.equal(got, want):
                raise SystemExit(f"{kind.name}: {name} is not what diffusers should find there")
        extra = [n for n in state if n not in expected]
        if extra:
            raise SystemExit(f"{kind.name}: diffusers finds what was not made: {extra[:5]}")
        return len(expected)

    dtype = torch.float16 if kind.half else torch.float32
    if kind.refused:
        return 0
    with tempfile.TemporaryDirectory() as config:
        configs.write_configs(config, family)
        if kind.form == "pruned":
            return check_pruned(folder, equal, known("unet"))
        if kind.foreign:  # torch must find the packages, or substitutes
            foreign.lightning(), foreign.omegaconf({})
        if kind.form == "gligen-original":
            return check_gligen_original(folder, equal, known, kind.foreign)
        if kind.foreign:  # diffusers itself refuses the classes
            entries = single_file(family, kind.dtype())
            state = torch.load(next(folder.glob("*.ckpt")), weights_only=False, mmap=True)["state_dict"]
            assert list(state) == [e.name for e in entries] and all(torch.equal(state[e.name], torch.from_numpy(e.value())) for e in entries)
            return len(entries)
        import diffusers_probe
        if kind.form == "vae":
            from diffusers import AutoencoderKL
            a = argparse.Namespace(model=config, vae=folder / "folder", config=config, dtype="f32")
            count = equal(diffusers_probe.load_as(AutoencoderKL, a, "vae", torch.float32).state_dict(), known("vae", "sdxl/vae-fix"))
            a.vae = folder / "sdxl_vae.safetensors"
            return count + equal(diffusers_probe.load_as(AutoencoderKL, a, "vae", torch.float32).state_dict(), known("vae", "sdxl/vae-fix"))
        from diffusers import StableDiffusionPipeline, StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
        cls = StableDiffusionXLPipeline if is_xl(family) else StableDiffusionPipeline
        cls = StableDiffusionXLImg2ImgPipeline if family == "refiner" else cls
        if kind.form in ("single", "ckpt"):
            path = next(p for p in folder.iterdir() if p.suffix in (".safetensors", ".ckpt"))
            pipe = cls.from_single_file(str(path), config=config, torch_dtype=dtype, local_files_only=True)
        else:
            pipe = cls.from_pretrained(folder, torch_dtype=dtype, variant="fp16" if kind.half else None,
                                       use_safetensors=kind.form != "bin", local_files_only=True)
        return sum(equal(getattr(pipe, c).state_dict(), known(c)) for c in configs.components(family))


def back(state, family, component):
    """Maps original names to diffusers' with diffusers' own conversion of a U-Net; the grounding tensors keep their suffix."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
    config = configs.UNET | configs.FAMILIES[family][component] | {"class_embed_type": None, "addition_embed_type": None}
    return convert_ldm_unet_checkpoint({f"model.diffusion_model.{n}": t for n, t in state.items()}, config)


def check_gligen_original(folder, equal, known, is_foreign):
    import torch
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
    parts = torch.load(folder / "diffusion_pytorch_model.bin", weights_only=not is_foreign, mmap=True)
    net = back(parts["model"], "gligen", "unet") | {n: t for n, t in parts["model"].items() if n.startswith("position_net.")}
    count = equal(net, known("unet"))
    first = {f"first_stage_model.{n}": t for n, t in parts["autoencoder"].items()}
    count += equal(convert_ldm_vae_checkpoint(first, configs.VAE), known("vae"))
    text = {n.removeprefix("transformer."): t for n, t in parts["text_encoder"].items() if not n.endswith("position_ids")}
    return count + equal(text, known("text_encoder"))


def check_pruned(folder, equal, known):
    """Checks that GLIGEN's file together with Stable Diffusion gives the tensors of the GLIGEN folder."""
    import torch
    from safetensors.torch import load_file
    state = load_file(next(folder.glob("*.safetensors")))
    rest = {e.name: torch.zeros(()) for e in renamed("sd1", "unet", original.unet, F16)}
    net = back(rest | state, "gligen", "unet")
    got = {n: t for n, t in net.items() if ".fuser." in n} | {n: t for n, t in state.items() if n.startswith("position_net.")}
    return equal(got, {n: k for n, k in known.items() if is_grounding(n)})


# ---- comparing

def write_inputs(path, family):
    """Writes fixed random inputs: latents as in a sampler, text states of unit variance, two boxes."""
    import torch
    from safetensors.torch import save_file
    g = torch.Generator().manual_seed(11)
    rand = lambda *shape: torch.randn(shape, generator=g)
    side, width = (32 if is_xl(family) else 16), configs.FAMILIES[family]["unet"]["cross_attention_dim"]
    words = torch.randint(1000, 40000, (9,), generator=g).tolist()
    ids = lambda pad: torch.tensor([[49406, *words, 49407] + [pad] * 66])
    x = {"unet.latent": rand(1, 4, side, side), "unet.t": torch.tensor([501.0]), "unet.context": rand(1, 77, width),
         "vae.latent": rand(1, 4, 16, 16), "vae.picture": rand(1, 3, 64, 64).clamp(-1, 1), "text.ids": ids(0 if family == "sd2" else 49407)}
    if is_xl(family):
        x |= {"unet.pooled": rand(1, 1280), "unet.time_ids": torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024]]), "text_2.ids": ids(0)}
    if family == "refiner":
        del x["text.ids"]
        x["unet.time_ids"] = torch.tensor([[1024.0, 1024, 0, 0, 6]])
    if family == "gligen":
        boxes, masks, phrases = torch.zeros(1, 30, 4), torch.zeros(1, 30), torch.zeros(1, 30, 768)
        boxes[0, :2] = torch.tensor([[0.08, 0.15, 0.45, 0.55], [0.55, 0.5, 0.92, 0.9]])
        masks[0, :2], phrases[0, :2] = 1, rand(2, 768)
        x |= {"gligen.boxes": boxes, "gligen.masks": masks, "gligen.embeddings": phrases}
    save_file(x, path)


# A child inherits its parent's peak memory in the system's accounting, so a small launcher starts it, not this script with torch.
LAUNCHER = """
import os, sys, time
start = time.perf_counter()
_, status, usage = os.wait4(os.spawnvp(os.P_NOWAIT, sys.argv[2], sys.argv[2:]), 0)
print(os.waitstatus_to_exitcode(status), time.perf_counter() - start, usage.ru_maxrss, file=open(sys.argv[1], "w"))
"""


def timed(command):
    """Returns (exit status, wall-clock seconds, peak MiB, output) of a command."""
    with tempfile.TemporaryFile("w+") as log, tempfile.NamedTemporaryFile("r") as result:
        subprocess.run([sys.executable, "-I", "-S", "-c", LAUNCHER, result.name, *map(str, command)], stdout=log, stderr=log, check=True)
        status, seconds, memory = result.read().split()
        log.seek(0)
        text = log.read()
    return int(status), float(seconds), int(memory) / 1024, text.strip()


def error(a, b, only=None):
    """Returns the largest relative error over the outputs of two files, or that of one output."""
    from safetensors.torch import load_file
    a, b = load_file(a), load_file(b)
    missing = set(b) - set(a) if only is None else {only} - set(a)
    if missing:
        raise SystemExit(f"not among the outputs: {', '.join(sorted(missing))}")
    names = b if only is None else [only]
    errors = [float((a[n].double() - b[n].double()).norm() / b[n].double().norm()) for n in names]
    return max(e if e == e else float("inf") for e in errors)


def size(folder):
    return sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())


class Comparison:
    """One row per kind and dtype. Outputs are kept in DIR and reused; weights are deleted."""

    def __init__(self, a):
        self.a, self.dir, self.bad, self.done = a, a.dir, [], set()
        self.theirs = [sys.executable, HERE / "diffusers_probe.py"]
        self.dir.mkdir(parents=True, exist_ok=True)

    def inputs(self, family):
        path = self.dir / f"inputs-{family}.safetensors"
        if not path.exists():
            write_inputs(path, family)
        return path

    def dtypes(self, kind):
        return [d for d in self.a.dtypes.split(",") if d == "f32" or kind.half]

    def outputs(self, who, kind, dtype, suffix=""):
        return self.dir / f"outputs-{kind.name}{suffix}-{who}-{dtype}.safetensors"

    def expected(self, base, options):
        """Returns diffusers' outputs with an existing base folder."""
        for dtype in dict.fromkeys(["f32", *self.dtypes(base)]):
            path = self.outputs("diffusers", base, dtype)
            if not path.exists():
                status, *_, text = timed([*self.theirs, "--inputs", self.inputs(base.family), "--outputs", path, "--dtype", dtype, *options])
                if status:
                    raise SystemExit(f"diffusers on {base.name}:\n{text}")

    def run(self, kind):
        base = KINDS[kind.base]
        need = {"sdxl": 30, "refiner": 21, "ssd1b": 15, "vega": 12}.get(kind.family, 8) * 10**9
        if shutil.disk_usage(self.dir).free < need:
            raise SystemExit(f"{self.dir} needs {need // 10**9} GB of free disk")
        self.done.add(kind.name)
        known = all(self.outputs(who, base, d).exists() for who in ("ours", "diffusers") for d in self.dtypes(base))
        if base.name not in self.done and not known and not kind.refused:
            self.run(base)
        if kind.form == "vae":
            return self.run_vae(kind)
        folder = self.dir / kind.name
        try:
            options, beside = make(kind, folder), None
            if kind.form == "pruned":
                beside = self.dir / "sd1-fp16"
                options = [*options, *make(KINDS["sd1-fp16"], beside)]
            equal = None if self.a.no_check else checked(kind, folder)
            if kind is base:
                self.expected(kind, options)
            for dtype in self.dtypes(kind):
                self.row(kind, base, options, dtype, size(folder), equal)
        finally:
            if not self.a.keep:
                shutil.rmtree(folder, ignore_errors=True)
                if kind.form == "pruned":
                    shutil.rmtree(beside or folder, ignore_errors=True)

    def run_vae(self, kind):
        """Runs the replacement autoencoder, as a folder and as a file, in a model whose other parts are irrelevant."""
        folder, model = self.dir / kind.name, self.dir / "sdxl-fp16"
        try:
            _, *forms = make(kind, folder)
            equal = None if self.a.no_check else checked(kind, folder)
            inputs = self.dir / "inputs-vae.safetensors"
            from safetensors.torch import load_file, save_file
            save_file({n: t for n, t in load_file(self.inputs("sdxl")).items() if n.startswith("vae.")}, inputs)
            configs.write_configs(self.dir / "configs", "sdxl")
            expected = self.outputs("diffusers", kind, "f32")
            status, *_, text = timed([*self.theirs, "--inputs", inputs, "--outputs", expected, "--model", self.dir / "configs", "--vae", forms[0]])
            if status:
                raise SystemExit(f"diffusers on {kind.name}:\n{text}")
            options = make(KINDS["sdxl-fp16"], model)
            for form, suffix in zip(forms, ("", "-file")):
                self.row(kind, kind, [*options, "--vae", form], "f32", size(form) if form.is_dir() else form.stat().st_size, equal,
                         inputs, suffix, output="vae.decoded")
        finally:
            if not self.a.keep:
                for path in (folder, model, self.dir / "configs"):
                    shutil.rmtree(path, ignore_errors=True)

    def row(self, kind, base, options, dtype, bytes_, equal, inputs=None, suffix="", output="unet.output"):
        ours = self.outputs("ours", kind, dtype, suffix)
        ours.unlink(missing_ok=True)
        command = [*shlex.split(self.a.bin), "--inputs", inputs or self.inputs(kind.family), "--outputs", ours, "--dtype", dtype, *options]
        status, seconds, memory, text = timed(command)
        start = f"{kind.name + suffix:26}{dtype:>5}{bytes_ / 1e9:8.2f}{'–' if equal is None else equal:>7}{memory / 1024:8.2f}{seconds:8.1f}"
        if status:
            said = " ".join(text.splitlines()[-4:])
            line = f"{start}   {'refused, as it should: ' if kind.refused else 'FAILED: '}{said[-400:]}"
            good = bool(kind.refused)
        elif kind.refused:
            line, good = f"{start}   LOADED, though it has {kind.refused}", False
        else:
            theirs = self.outputs("diffusers", base, "f32")
            itself, of_base = self.outputs("diffusers", base, dtype), self.outputs("ours", base, dtype)
            net, all_ = error(ours, theirs, output), error(ours, theirs)
            line = start + f"{net:12.1e}{all_:12.1e}"
            line += f"{error(itself, theirs, output):12.1e}" if dtype != "f32" and itself.exists() else f"{'':12}"
            line += f"{error(ours, of_base):12.1e}" if of_base.exists() and of_base != ours else f"{'':12}"
            good = all_ <= AIMS[dtype]
            line += "" if good else "   above the aim"
        if not good:
            self.bad.append(f"{kind.name}{suffix} {dtype}")
        print(line, flush=True)


HEAD = f"{'kind':26}{'dtype':>5}{'GB':>8}{'equal':>7}{'GiB':>8}{'s':>8}{'U-Net':>12}{'largest':>12}{'by itself':>12}{'to folder':>12}"


def checked(kind, folder):
    """Runs check() in a process of its own, so that its memory is freed."""
    done = subprocess.run([sys.executable, __file__, "--check", kind.name, folder], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{kind.name}: diffusers does not find what was made:\n{done.stderr[-2000:]}")
    return int(done.stdout.split()[-3])


def chosen(names):
    """Returns the kinds with these names or families."""
    out = []
    for name in names:
        found = [k for k in KINDS.values() if name in (k.name, k.family, "all")]
        if not found:
            raise SystemExit(f"no kind `{name}`; there are {', '.join(KINDS)}, and the families sd1, gligen, sdxl, sd2, refiner, ssd1b and vega")
        out += [k for k in found if k not in out]
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--make", nargs=2, metavar=("KIND", "DIR"))
    p.add_argument("--check", nargs=2, metavar=("KIND", "DIR"))
    p.add_argument("--compare", nargs="*", metavar="KIND")
    p.add_argument("--list", action="store_true")
    p.add_argument("--bin", help="our program, with leading arguments if any")
    p.add_argument("--dir", type=Path, help="folder for the files and the outputs")
    p.add_argument("--dtypes", default="f32,bf16", help="dtypes to compare; files in f32 use f32 only, files in half precision all of them")
    p.add_argument("--keys", type=Path, default=configs.LISTS)
    p.add_argument("--no-check", action="store_true", help="skip loading each kind with diffusers")
    p.add_argument("--keep", action="store_true", help="keep the files")
    p.add_argument("--sparse", action="store_true", help="with --make: safetensors files without their numbers, to count what a device does with them")
    a = p.parse_args()
    random_weights.SPARSE = a.sparse
    if a.list:
        for k in KINDS.values():
            print(f"{k.name:26} {k.family:7} {'f16' if k.half else 'f32'}   from {k.base}{'; to be refused: ' + k.refused if k.refused else ''}")
    elif a.make:
        kinds = chosen([a.make[0]])
        for family in dict.fromkeys(k.family for k in kinds):
            print(*check_keys(family, a.keys), sep="\n")
        for kind in kinds:
            folder, start = Path(a.make[1]) / (kind.name if len(kinds) > 1 else ""), time.perf_counter()
            options = make(kind, folder)
            print(f"{kind.name}: {size(folder) / 1e9:.2f} GB in {time.perf_counter() - start:.0f} s:", *options)
    elif a.check:
        (kind,) = chosen([a.check[0]])
        print(f"{kind.name}: {check(kind, a.check[1])} tensors equal")
    elif a.compare is not None:
        if not a.bin or not a.dir:
            p.error("--compare needs --bin and --dir")
        kinds = chosen(a.compare or ["all"])
        for family in dict.fromkeys(k.family for k in kinds):
            print(*check_keys(family, a.keys), sep="\n")
        print(f"\n{HEAD}")
        comparison = Comparison(a)
        for kind in kinds:
            comparison.run(kind)
        if comparison.bad:
            raise SystemExit(f"not within the aims: {', '.join(comparison.bad)}")
    else:
        p.error("one of --make, --check, --compare, --list")


if __name__ == "__main__":
    main()
