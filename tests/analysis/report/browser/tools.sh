#!/usr/bin/env bash
# Brings what opening a report in a browser takes: Debian's Chromium and Node, and playwright-core by npm into build/browser.
# What cannot be had is said, and the test skips, or fails where CI is set.
set -euo pipefail
cd "$(dirname "$0")/../../../.."

has_tools() { command -v chromium >/dev/null && command -v node >/dev/null && command -v npm >/dev/null; }

if ! has_tools && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  wanted=()
  for tool in chromium:chromium node:nodejs npm:npm; do
    command -v "${tool%:*}" >/dev/null || wanted+=("${tool#*:}")
  done
  (apt-get update && apt-get install -y --no-install-recommends "${wanted[@]}") >/dev/null 2>&1 || true
fi
if ! has_tools; then
  echo "browser: not set up, it needs Debian's chromium, nodejs and npm (as root, and where apt-get can reach them, they are installed)"
  exit 0
fi
if [ ! -e build/browser/node_modules/playwright-core ]; then
  mkdir -p build/browser
  npm install --prefix build/browser --no-save --no-audit --no-fund --loglevel=error playwright-core@1.65.1 >/dev/null 2>&1 ||
    echo "browser: not set up, npm cannot install playwright-core"
fi
