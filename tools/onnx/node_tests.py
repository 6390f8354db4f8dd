"""Runs the node tests of the `onnx` package against lsregen's operators: how many agree, are refused, or are apart.

Takes the tests that have a 4-D input of floats, as images and feature maps are. That input is the network's, the others
become weights. The example `node_tests` of lsregen-onnx opens each network, compares all outputs of numbers, and tests the
gradients by finite differences. Installs onnx from PyPI in a virtual environment, which it throws away unless --venv names
one. Exits with 1 if an output is apart or a gradient deviates, but for the tests that are DISPUTED.

Made with onnx 1.23.2.  usage: node_tests.py [--venv FOLDER] [--onnx VERSION] [--binary FILE] [--rank N] [--all] [FILTER]   (FILTER: a regular expression over names)
"""
import argparse, collections, os, re, subprocess, sys, tempfile, warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Tests whose expected output others do not compute either.
DISPUTED = {
    "resize_downsample_scales_linear_align_corners": "aligns the corners of a size that is not rounded; onnxruntime and torch align those of the output",
    "resize_downsample_scales_cubic_align_corners": "the same",
}


def in_venv(arguments):
    """Runs this script again in a virtual environment with onnx, and returns its exit code."""
    with tempfile.TemporaryDirectory() as throw_away:
        venv = Path(arguments.venv or throw_away)
        python = venv / "bin/python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
            packages = [f"onnx=={arguments.onnx}", "safetensors==0.8.0"]
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        return subprocess.run([python, *sys.argv], env=os.environ | {"NODE_TESTS_INSIDE": "1"}).returncode


def write(case, folder, rank):
    """Writes a test as model.onnx and io.safetensors. Returns whether it has an input of floats of that rank, and an output of numbers."""
    import ml_dtypes
    import numpy as np
    import onnx
    from onnx import numpy_helper
    from safetensors.numpy import save_file

    wide = {"float32": 0, "float64": 0, "float16": 5e-3, np.dtype(ml_dtypes.bfloat16).name: 3e-2}
    inputs, outputs = ([np.asarray(a) if isinstance(a, np.generic) else a for a in side] for side in case.data_sets[0])
    images = [i for i, a in enumerate(inputs) if isinstance(a, np.ndarray) and a.ndim == (rank or a.ndim) and a.size and a.dtype.name in wide]
    numbers = [i for i, a in enumerate(outputs) if isinstance(a, np.ndarray) and a.dtype.kind in "fiub" or getattr(a, "dtype", None) == ml_dtypes.bfloat16]
    if not images or not numbers or not all(isinstance(a, np.ndarray) for a in inputs):
        return False
    graph = onnx.GraphProto()
    graph.CopyFrom(case.model.graph)
    image = graph.input[images[0]].name
    for declared, value in zip(list(graph.input), inputs):
        if declared.name != image:
            graph.initializer.append(numpy_helper.from_array(value, declared.name))
            graph.input.remove(declared)
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    model.graph.CopyFrom(graph)
    model.ir_version = min(model.ir_version, 10)
    folder.mkdir()
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    x = inputs[images[0]]
    coarse = max(wide.get(a.dtype.name, 0) for a in [x, *(outputs[i] for i in numbers)])
    io = {"x": x.astype(np.float32), "tolerance": np.array([max(case.rtol, coarse), max(case.atol, coarse, 1e-6)])}
    for i in numbers:
        whole = {"b": np.uint8, "i": np.int64, "u": np.int64}.get(outputs[i].dtype.kind, np.float32)
        io[f"y.{case.model.graph.output[i].name}"] = outputs[i].astype(whole, order="C")
    save_file(io, folder / "io.safetensors")
    return True


def run(arguments):
    warnings.filterwarnings("ignore")
    import onnx
    from onnx.backend.test.case.node import collect_testcases

    with tempfile.TemporaryDirectory() as folder:
        count = 0
        for case in collect_testcases(None):
            if case.model is not None and case.data_sets and re.search(arguments.filter, case.name):
                count += write(case, Path(folder) / case.name.removeprefix("test_"), arguments.rank)
        print(f"{count} node tests of onnx {onnx.__version__} have {f'a {arguments.rank}-D' if arguments.rank else 'an'} input of floats")
        cargo = ["cargo", "run", "--quiet", "--release", "-p", "lsregen-onnx", "--example", "node_tests", "--"]
        command = [arguments.binary] if arguments.binary else cargo
        lines = subprocess.run([*command, folder], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    found = collections.defaultdict(list)
    for name, verdict, gradient, words in (line.split("\t") for line in lines):
        if verdict == "apart" and name in DISPUTED:
            verdict, words = "disputed", DISPUTED[name]
        found[verdict].append((name, words))
        if verdict == "agree":
            found[f"gradient {gradient}"].append((name, words))
    for kind in ["refused", "disputed", "apart", "gradient refused", *(["agree"] if arguments.all else [])]:
        for name, words in found[kind]:
            print(f"{kind:16} {name}: {words}")
    print(", ".join(f"{len(found[kind])} {kind}" for kind in ["agree", "refused", "apart", "disputed"]) + "; of those that agree, " +
          ", ".join(f"{len(found[f'gradient {kind}'])} gradients {what}" for kind, what in [("agrees", "agree"), ("refused", "are refused"), ("none", "do not exist")]))
    return 1 if found["apart"] or found["gradient refused"] else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("filter", nargs="?", default="")
    parser.add_argument("--venv", help="a virtual environment to keep")
    parser.add_argument("--onnx", default="1.23.2", help="the version of onnx")
    parser.add_argument("--all", action="store_true", help="list the tests that agree too")
    parser.add_argument("--rank", type=int, default=4, help="the rank of the input; 0 for any")
    parser.add_argument("--binary", help="the built example; by default it is built first")
    arguments = parser.parse_args()
    sys.exit(run(arguments) if os.environ.get("NODE_TESTS_INSIDE") else in_venv(arguments))
