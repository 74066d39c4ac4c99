#!/bin/sh
# Builds bpf-linker, linked with Debian's LLVM.
# Usage: bpf-linker.sh VERSION LLVM-VERSION DIRECTORY; the program will be DIRECTORY/bin/bpf-linker.
set -eu

# bpf-linker asks whichever llvm-config it finds first; without LLVM_PREFIX it links against the wrong directory.
export LLVM_PREFIX="/usr/lib/llvm-$2"
export PATH="$LLVM_PREFIX/bin:$PATH"

cargo install bpf-linker --version "$1" --locked --no-default-features --features "llvm-$2" --root "$3" --force
