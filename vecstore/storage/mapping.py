"""Read-only memory maps of files that cost no descriptor.

`mmap.mmap` duplicates the descriptor and keeps it for the life of the mapping (until Python 3.13's
``trackfd=False``). A process that maps thousands of parts would run into its limit of open files
(promise P8), so the C library is asked directly. Imports nothing of the package.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_longlong,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_FAILED = ctypes.c_void_p(-1).value


def map_file(descriptor: int) -> memoryview:
    """The whole file behind ``descriptor``, read-only and shared; `OSError` if it cannot be mapped.

    The view, and every view made from it, keeps the mapping alive. The descriptor may be closed.
    """
    size = os.fstat(descriptor).st_size
    if size == 0:
        return memoryview(b"")  # the kernel maps no empty file
    address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    owner = (ctypes.c_ubyte * size).from_address(address)
    release = weakref.finalize(owner, _libc.munmap, address, size)
    # While the interpreter ends, other threads may still read; the kernel unmaps anyway.
    release.atexit = False
    return memoryview(owner).cast("B").toreadonly()
