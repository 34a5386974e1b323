"""Keeping freed memory: glibc hands large arrays back to the system, and new ones cost page faults.

What TensorFlow and numpy compute for a batch is freed and asked for again with the next one. Handed
back each time, it costs more than the computation.
"""

from __future__ import annotations

import ctypes
import os

# Of mallopt, in malloc.h: the size of free memory at the end of the heap that is handed back, what
# is asked for beyond what is needed, and the size from which blocks lie apart from the heap, each
# of which is handed back as it is freed. The largest that glibc takes: so the few largest arrays
# leave no holes, which cost an eighth more memory and no less time.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def keep_freed() -> None:
    """Lets this process keep the memory that it frees, unless MALLOC_* variables are set."""
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return
    mallopt(_MMAP_THRESHOLD, 2**25)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 2**26)
