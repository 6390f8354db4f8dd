#!/usr/bin/env bash
# Sets up a CUDA toolkit in a folder from Python packages. Needs x86-64 Linux, gcc and g++, and Python 3 with venv; no GPU, no
# driver and no root.
# usage: tools/cuda/home.sh [--compiler] DIR [VERSION]       VERSION of the toolkit, by default 13.0.2
# Then: . DIR/env.sh && cargo build --release --features cuda,cudnn        (see docs/cuda.md)
# With --compiler, only the compiler (0.3 GB instead of 3): name libraries to link with in LIBRARY_PATH, such as the software
# device's.
set -euo pipefail

compiler=
if [ "${1:-}" = --compiler ]; then
    compiler=1
    shift
fi
usage="usage: tools/cuda/home.sh [--compiler] DIR [VERSION]"
case "${1:-}" in
    -h | --help) echo "$usage"; exit ;;
    -* | '') echo "$usage" >&2; exit 2 ;;
esac
home=$1
here=$(cd "$(dirname "$0")" && pwd)
version=${2:-13.0.2}
major=${version%%.*}
for tool in python3 gcc g++; do
    command -v "$tool" > /dev/null || { echo "home.sh: needs $tool" >&2; exit 1; }
done
mkdir -p "$home"
home=$(cd "$home" && pwd)

# 1. NVIDIA's packages, in a virtual environment: the compiler, its headers, and the libraries to link with.
if [ ! -x "$home/packages/bin/python" ]; then
    python3 -m venv "$home/packages"
fi
if [ $compiler ]; then
    packages=("cuda-toolkit[nvcc,cudart,cccl,crt,nvvm]==$version")
else
    packages=("cuda-toolkit[nvcc,cudart,cccl,cublas,curand,nvrtc,crt,nvvm]==$version" "nvidia-cudnn-cu$major")
fi
"$home/packages/bin/python" -m pip install --quiet "${packages[@]}"
nvidia=$(echo "$home"/packages/lib/python3*/site-packages/nvidia)
toolkit=$nvidia/cu$major
[ -x "$toolkit/bin/nvcc" ] || { echo "home.sh: no nvcc in $toolkit: the packages of $version have another layout" >&2; exit 1; }

# 2. The folders in which builds look for them, and the unversioned library names that linkers need.
rm -rf "$home"/{bin,include,nvvm,lib,lib64}
mkdir -p "$home/include" "$home/lib/stubs"
ln -s "$toolkit/bin" "$toolkit/nvvm" "$home/"
ln -s "$toolkit"/include/* "$home/include/"
ln -s "$toolkit"/lib/* "$home/lib/"
ln -s lib "$home/lib64"
if [ ! $compiler ]; then
    ln -s "$nvidia"/cudnn/include/* "$home/include/"
    ln -s "$nvidia"/cudnn/lib/* "$home/lib/"
    for library in cudart cublas cublasLt curand nvrtc cudnn; do
        versioned=$(cd "$home/lib" && ls -d "lib$library".so.* | head -n 1)
        ln -sfn "$versioned" "$home/lib/lib$library.so"
    done
fi

# 3. The packages contain no driver. This makes a stub to link with: every function of cuda.h, each of which fails.
[ $compiler ] || "$home/packages/bin/python" - "$toolkit/include/cuda.h" > "$home/lib/stubs/cuda.c" <<'PYTHON'
import re, sys

header = open(sys.argv[1]).read()
names = set(re.findall(r"\bcu[A-Z]\w*(?=\s*\()", header))
for pair in re.findall(r"^\s*#\s*define\s+(cu[A-Z]\w*)\s+(cu[A-Z]\w*)\s*$", header, re.M):
    names.update(pair)
names |= {name + suffix for name in names for suffix in ("_v2", "_v3", "_v4", "_ptsz", "_ptds")}
for name in sorted(names):
    print(f"int {name}(void) {{ return 34; }}  /* CUDA_ERROR_STUB_LIBRARY */")
PYTHON
[ $compiler ] || gcc -shared -fPIC -w -fno-builtin -Wl,-soname,libcuda.so.1 -o "$home/lib/stubs/libcuda.so" "$home/lib/stubs/cuda.c"

# 4. The environment variables of a build.
cat > "$home/env.sh" <<ENV
export CUDA_HOME='$home' CUDA_PATH='$home' NVCC='$here/nvcc'
export PATH="\$CUDA_HOME/bin:\$PATH"
export LIBRARY_PATH="\$CUDA_HOME/lib:\$CUDA_HOME/lib/stubs\${LIBRARY_PATH:+:\$LIBRARY_PATH}"
export CUDA_COMPUTE_CAP=\${CUDA_COMPUTE_CAP:-80}
ENV
"$home/bin/nvcc" --version | tail -n 2
echo "$home: . $home/env.sh, then cargo build --release --features cuda,cudnn"
