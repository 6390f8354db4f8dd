#!/usr/bin/env bash
# Tests a program built with CUDA on a machine without: it starts, falls back to the CPU, and reports what is missing.
# Missing drivers and libraries are replaced by stubs. Needs gcc and readelf; no GPU.
# usage: tools/cuda/start.sh PROGRAM
set -uo pipefail
cd "$(dirname "$0")/../.."
program=${1:-}
[ $# = 1 ] && [ -f "$program" ] && [ -x "$program" ] || { echo "start.sh: \`$program\` is not a program; usage: tools/cuda/start.sh PROGRAM" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
faults=0

# expect WHAT CODE TEXT COMMAND…: expects an exit code, and a text that stderr contains (or, after !, does not contain)
expect() {
    local what=$1 code=$2 text=$3 said got fine=1
    shift 3
    said=$("$@" 2>&1 > /dev/null); got=$?
    [ $got = "$code" ] || fine=
    case $text in
        !*) ! grep -qF -- "${text#!}" <<< "$said" || fine= ;;
        *) grep -qF -- "$text" <<< "$said" || fine= ;;
    esac
    if [ $fine ]; then echo "good   $what"; return; fi
    echo "FAULT  $what: exit code $got for $code, wanted \`$text\` in: $said"
    faults=$((faults + 1))
}

# Writes stub libraries to $folder/NAME: a driver with a version and a number of devices; the others are empty.
driver() {
    mkdir -p "$folder/$1"
    gcc -shared -fPIC -o "$folder/$1/libcuda.so.1" -x c - <<C
int cuDriverGetVersion(int *v) { *v = $2; return 0; }
int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int *n) { *n = $3; return 0; }
C
}
library() { gcc -shared -fPIC -o "$folder/$1/$2" -x c /dev/null; }
with() { local libraries=$folder/$1; shift; env LD_LIBRARY_PATH="$libraries" "$@"; }

needed=$(readelf -d "$program" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p')
echo "needs to start: "$needed
if grep -qE 'libcu|libnv' <<< "$needed"; then echo "FAULT  it needs CUDA's libraries to start"; faults=1; fi

run=("$program" run graphs/gligen.yaml --no-cache --quiet --output-dir "$folder/out" --set steps=2)
unset LD_LIBRARY_PATH
expect "starts" 0 "" "$program" --version
expect "draws on the CPU" 0 "!warning" "${run[@]}" --device cpu
expect "draws on the CPU, everything bound at the start" 0 "!warning" env LD_BIND_NOW=1 "${run[@]}" --device cpu
expect "auto falls back and says why" 0 "warning: computing on the CPU: there is no NVIDIA driver" "${run[@]}" --device auto
expect "cuda is an error" 2 "there is no NVIDIA driver here (\`libcuda.so.1\` is not found)" "${run[@]}" --device cuda
driver old 12040 1
expect "an old driver" 2 "the NVIDIA driver supports CUDA up to 12.4" with old "${run[@]}" --device cuda
driver bare 99000 1
expect "no libraries" 2 "CUDA's library \`libcudart.so." with bare "${run[@]}" --device cuda:0
driver none 99000 0
for name in cudart cublas cublasLt; do
    for major in 11 12 13; do library none lib$name.so.$major; done
done
expect "one library missing" 2 "CUDA's library \`libcurand.so.10\` is not found" with none "${run[@]}" --device cuda
library none libcurand.so.10
library none libcudnn.so.9
expect "no device" 2 "the NVIDIA driver reports no device" with none "${run[@]}" --device cuda
expect "no device, auto" 0 "warning: computing on the CPU: the NVIDIA driver reports no device" with none "${run[@]}"
cp -r "$folder/none" "$folder/one"
driver one 99000 1
expect "a device with a higher number than there are" 2 "the only CUDA device here is \`cuda:0\`" with one "${run[@]}" --device cuda:3
expect "a device that does not open" 2 "does not open" with one "${run[@]}" --device cuda
[ $faults = 0 ] && echo "all good" || { echo "$faults faults"; exit 1; }
