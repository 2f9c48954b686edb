#!/usr/bin/env bash
# Cross-compiles the native tests for 64-bit Arm and runs them under QEMU on three processors. The newest has every instruction
# set of the table; the others leave out what it proved for them. The first argument is a folder that holds cmake and ninja.
set -euo pipefail
cd "$(dirname "$0")/../.."

packages=(g++-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)
has_tools() { command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64 >/dev/null; }

if [ "$(uname -m)" = aarch64 ]; then
  echo "arm: skipped, this machine is Arm itself and runs the native tests as they are"
  exit 0
fi
if ! has_tools && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  (apt-get update && apt-get install -y --no-install-recommends "${packages[@]}") >/dev/null 2>&1 || true
fi
if ! has_tools; then
  echo "arm: skipped, it needs Debian's ${packages[*]} (as root, and where apt-get can reach them, they are installed)"
  exit 0
fi

# -O1 because -O2 compiles for minutes; QEMU's arithmetic is slow enough for the choice not to matter there.
"$1/cmake" -S . -B build/arm -G Ninja -DCMAKE_MAKE_PROGRAM="$1/ninja" --log-level=WARNING -Wno-unused-cli \
  -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64.cmake -DCMAKE_CXX_FLAGS_RELEASE=-O1 -DBITWRIGHT_TESTS=ON -DBITWRIGHT_PYTHON=OFF >/dev/null
"$1/cmake" --build build/arm -- --quiet

# The processor must also make the table pick its set: otherwise a set that is never detected would pass unseen.
run_on() {
  local processor=$1 set=$2 report without=("other widths" "${@:3}")
  report=$(qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu "$processor" build/arm/native_tests "${without[@]}") ||
    { echo "$processor: $report"; return 1; }
  echo "$processor: $report"
  [[ $report == *"native tests on $set:"* ]] || { echo "arm: $processor should have picked $set"; return 1; }
}
running=()
proved=(scalar emulated half "other caches")
run_on max i8mm &
running+=($!)
run_on cortex-a76 dotprod neon "${proved[@]}" &
running+=($!)
run_on cortex-a53 neon "${proved[@]}" &
running+=($!)
for process in "${running[@]}"; do wait "$process"; done
