#!/usr/bin/env bash
# Runs everything that needs a GPU and prints one table; takes under 10 minutes if the program is already built.
# usage: tools/gpu/run.sh            on a machine with an NVIDIA GPU
#        tools/gpu/run.sh --dry      the same steps on the CPU with the built-in models, to test this script
# Settings, from the environment:
#   LSREGEN_BIN   a program built with --features cuda,cudnn; without it, the script builds one (see docs/cuda.md)
#   SDXL          a diffusers folder of SDXL; without it, the script makes one of full size with random weights (7 GB)
#   PYTHON        a Python with numpy, and with torch and diffusers for the comparison; by default python3
set -euo pipefail
cd "$(dirname "$0")/../.."

die() { echo "run.sh: $*" >&2; exit 1; }
python=${PYTHON:-python3}
"$python" -c '' 2> /dev/null || die "\`$python\` does not run: name a Python in PYTHON"
dry=
case "${1:-}" in
    --dry) dry=1 ;;
    '') ;;
    *) die "unknown argument \`$1\`; usage: tools/gpu/run.sh [--dry]" ;;
esac

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

if [ -z "$dry" ]; then
    command -v nvidia-smi > /dev/null || die "no nvidia-smi: this machine has no NVIDIA driver; --dry works without"
    nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap --format=csv,noheader ||
        die "nvidia-smi finds no GPU"
fi

program=${LSREGEN_BIN:-}
if [ -z "$program" ]; then
    if [ -n "$dry" ]; then
        cargo build
        program=target/debug/lsregen
    else
        command -v nvcc > /dev/null || die "no nvcc to build with: see docs/cuda.md, or name a program in LSREGEN_BIN"
        cargo build --release --features cuda,cudnn
        program=target/release/lsregen
    fi
fi
[ -x "$program" ] || die "$program is not executable"
"$program" --version

measure=("$python" tools/gpu/measure.py --bin "$program" --python "$python")
if [ -n "$dry" ]; then
    "${measure[@]}" --model models/shapes/xl --device cpu --dtype f32 --sizes 256x256,384x288 --steps 2,4 --ceiling 512
    exit
fi

# Reports problems with the device before gigabytes are written.
"$program" run tools/gpu/sdxl.yaml --device cuda --no-cache --quiet --output-dir "$scratch" || die "CUDA cannot be used"

model=${SDXL:-}
variant=()
if [ -z "$model" ]; then
    [ -f tools/weights/full_size.py ] || die "tools/weights/full_size.py, which makes the model, is missing: name a model in SDXL"
    "$python" -c 'import numpy' 2> /dev/null || die "making a model needs numpy in $python"
    model=$scratch/sdxl-fp16
    "$python" tools/weights/full_size.py --make sdxl-fp16 "$model" || die "the model could not be made"
fi
[ -d "$model/unet" ] || die "$model is not a diffusers folder: it has no unet/"
[ ! -f "$model/unet/diffusion_pytorch_model.fp16.safetensors" ] || variant=(--variant fp16)
"${measure[@]}" --model "$model" --device cuda --dtype bf16 "${variant[@]}"
