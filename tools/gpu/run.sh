#!/usr/bin/env bash
# Runs everything that needs a GPU and prints one table; meant to take under 8 minutes with a program that is already built.
# usage: tools/gpu/run.sh            on a machine with an NVIDIA GPU, its driver, and a Python with PyTorch
#        tools/gpu/run.sh --dry      the same steps on the software device with the built-in models, without a GPU
# Settings, from the environment:
#   LSREGEN_BIN   a program built with --features cuda,cudnn; by default target/gpu/lsregen, which `tools/gpu/run.sh --build`
#                 makes on a machine with a CUDA compiler; it is all that the machine with the GPU needs besides the repository
#   SDXL          a diffusers folder of SDXL; without it, the script makes one of full size with random weights (7 GB)
#   PYTHON        a Python with numpy, and with torch and diffusers for the comparison; by default python3
# CUDA's libraries are found beside PyTorch, if the system has none.
set -euo pipefail
cd "$(dirname "$0")/../.."

die() { echo "run.sh: $*" >&2; exit 1; }
python=${PYTHON:-python3}
"$python" -c '' 2> /dev/null || die "\`$python\` does not run: name a Python in PYTHON"
carried=target/gpu/lsregen
dry=
case "${1:-}" in
    --dry) dry=1 ;;
    --build)
        command -v nvcc > /dev/null || die "no nvcc to build with: see docs/cuda.md"
        cargo build --release --features cuda,cudnn
        mkdir -p target/gpu
        cp target/release/lsregen "$carried"
        echo "$carried"
        exit ;;
    -h | --help) echo "usage: tools/gpu/run.sh [--dry | --build]"; exit ;;
    '') ;;
    *) die "unknown argument \`$1\`; usage: tools/gpu/run.sh [--dry | --build]" ;;
esac

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

if [ -n "$dry" ]; then
    tools/cuda/device/build target/cuda/device > /dev/null 2>&1 || die "the software device does not build"
    export LD_LIBRARY_PATH=$PWD/target/cuda/device CUDA_DEVICE_CACHE=$PWD/target/cuda/kernels
    program=${LSREGEN_BIN:-target/cuda/build/debug/lsregen}
else
    command -v nvidia-smi > /dev/null || die "no nvidia-smi: this machine has no NVIDIA driver; --dry works without"
    nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap --format=csv,noheader ||
        die "nvidia-smi finds no GPU"
    program=${LSREGEN_BIN:-$carried}
    # The folders of NVIDIA's packages, which PyTorch installs.
    for library in $("$python" -c 'import nvidia, pathlib
for place in nvidia.__path__:
    print(*sorted({str(p.parent) for p in pathlib.Path(place).rglob("*.so.*")}), sep="\n")' 2> /dev/null); do
        LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$library
    done
    export LD_LIBRARY_PATH
fi
[ -x "$program" ] || die "$program is not there: build it with --features cuda,cudnn, or name one in LSREGEN_BIN"
"$program" --version

# Reports problems with the device before gigabytes are written.
"$program" run tools/gpu/sdxl.yaml --device cuda --no-cache --quiet --output-dir "$scratch" || die "CUDA cannot be used"

measure=("$python" tools/gpu/measure.py --bin "$program" --python "$python")
if [ -n "$dry" ]; then
    "${measure[@]}" --model models/shapes/xl --torch-device cpu --dtype bf16 --sizes 256x256,384x288 --steps 2,4 --ceiling 512 \
        --graphs graphs/lsregen.yaml,graphs/layout-guidance.yaml
    exit
fi

model=${SDXL:-}
variant=()
if [ -z "$model" ]; then
    "$python" -c 'import numpy' 2> /dev/null || die "making a model needs numpy in $python"
    model=$scratch/sdxl-fp16
    "$python" tools/weights/full_size.py --make sdxl-fp16 "$model" || die "the model could not be made"
fi
[ -d "$model/unet" ] || die "$model is not a diffusers folder: it has no unet/"
[ ! -f "$model/unet/diffusion_pytorch_model.fp16.safetensors" ] || variant=(--variant fp16)
"${measure[@]}" --model "$model" --device cuda --dtype bf16 "${variant[@]}"
