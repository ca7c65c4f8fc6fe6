#!/usr/bin/env bash
# browser.sh: prints where a headless Chromium is, for the test that renders reports (REFRAIN_TEST_BROWSER).
# Takes the one that is installed, else the system's package (Debian, as root; under a minute). Where none is to
# be had it prints nothing, and says so.
set -euo pipefail

find_browser() {
    local name
    for name in chromium-headless-shell chromium chromium-browser google-chrome; do
        if command -v "$name"; then return; fi
    done
    return 1
}

find_browser && exit
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    # A page is measured in the letters of a font, so one must be there.
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        chromium-headless-shell fonts-liberation; } >&2 || true
fi
find_browser || printf '\n!!! SKIPPED: no headless Chromium, neither installed nor from a package. Reports are not rendered.\n\n' >&2
