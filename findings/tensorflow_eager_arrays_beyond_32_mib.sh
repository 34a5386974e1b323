#!/bin/bash
# Packages: tensorflow 2.21.0, numpy 2.4.6
# Behaviour: with glibc's default settings, the result of every eager operation that is larger than
#   32 MiB is new memory: each of its 4 KiB pages is faulted in again on every call, however often
#   the same operation ran before. Results of 8 MiB reuse what was freed, as glibc raises its
#   threshold for mmap with what is freed, but to 32 MiB at most. The faults cost more than the
#   arithmetic of a rectifier or a bias. With MALLOC_MMAP_MAX_=0 and a large
#   MALLOC_TRIM_THRESHOLD_, larger results are reused, too. (Huge pages are off here; with them the
#   pages are larger, and the zeroing stays.)
# Seen: 2026-11-29, Python 3.11, glibc 2.36, x86-64 Linux
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tensorflow==2.21.0 numpy==2.4.6
cat > "$folder/pages.py" <<'PY'
import ctypes
import resource
import sys

import tensorflow as tf

PR_SET_THP_DISABLE = 41
assert ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0


def share_of_pages_faulted(mib, calls=50):
    x = tf.zeros((mib * 2**18,))
    for _ in range(30):
        tf.nn.relu6(x)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(calls):
        tf.nn.relu6(x)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return faults / (calls * mib * 256)


small, large = share_of_pages_faulted(8), share_of_pages_faulted(48)
print(f"8 MiB {small:.2f}, 48 MiB {large:.2f}")
if sys.argv[1] == "default":
    assert small < 0.5, small
    assert large > 0.95, large
else:
    assert large < 0.3, large
PY
export TF_CPP_MIN_LOG_LEVEL=3
"$folder/venv/bin/python" "$folder/pages.py" default
MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8589934592 "$folder/venv/bin/python" \
    "$folder/pages.py" kept
echo "as described"
