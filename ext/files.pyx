"""Whether files are still what they were: ``stat`` without the interpreter's objects around it.

A strong read on a local store asks at every search whether the manifest was switched and whether
somebody wrote to a mapped part. The way along a path is most of what ``stat`` costs (1.2 of 1.7 us), so
of files that are watched some are held open and asked by their descriptor.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free


cdef extern from "<sys/stat.h>" nogil:
    cdef struct timespec:
        int64_t tv_sec
        int64_t tv_nsec
    cdef struct stat_t "stat":
        uint64_t st_dev
        uint64_t st_ino
        uint64_t st_nlink
        int64_t st_size
        timespec st_mtim
        timespec st_ctim
    int stat(const char *path, stat_t *found)
    int fstat(int descriptor, stat_t *found)


cdef extern from "<fcntl.h>" nogil:
    int O_RDONLY
    int O_CLOEXEC
    int open(const char *path, int flags, ...)


cdef extern from "<unistd.h>" nogil:
    int close(int descriptor)


cdef struct Noted:
    const char *path
    uint64_t inode
    int64_t size
    int64_t modified  # nanoseconds since the epoch
    int descriptor  # of the file that was noted; -1 if it is not held
    uint64_t links  # of a file that is held, and when they or anything else of it changed
    int64_t touched


def is_same(bytes path not None, uint64_t device, uint64_t inode) -> bool:
    """Whether a path leads to this file."""
    cdef const char *name = path
    cdef stat_t found
    cdef int failed
    with nogil:
        failed = stat(name, &found)
    return failed == 0 and found.st_dev == device and found.st_ino == inode


cdef class Watch:
    """Files whose state was noted.

    Parameters
    ----------
    files : sequence of (path, (inode, size, mtime_ns))
        Paths as bytes; a state as ``os.stat`` tells it.
    hold : int
        How many of them, at most, are held open; these cost a third.
    """

    cdef object __weakref__
    cdef readonly Py_ssize_t held
    cdef list paths
    cdef Noted *noted
    cdef Py_ssize_t count

    def __cinit__(self, files, Py_ssize_t hold=0):
        cdef bytes path
        cdef Py_ssize_t i
        self.paths = [path for path, _ in files]
        self.noted = <Noted *>calloc(max(1, len(self.paths)), sizeof(Noted))
        if self.noted == NULL:
            raise MemoryError
        for i, (_, (inode, size, modified)) in enumerate(files):
            path = self.paths[i]
            self.noted[i] = Noted(path, inode, size, modified, -1, 0, 0)
            self.count = i + 1
            if self.held < hold:
                self.held += hold_open(self.noted + i)

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.count):
            if self.noted[i].descriptor >= 0:
                close(self.noted[i].descriptor)
        free(self.noted)

    def __len__(self) -> int:
        return self.count

    def changed(self):
        """Numbers of the files that are not as noted; one that is gone is left out."""
        cdef Py_ssize_t i = 0
        cdef bint found = False
        with nogil:
            while i < self.count and not found:
                found = is_changed(self.noted + i)
                i += 1
        if not found:
            return []
        return [j for j in range(self.count) if is_changed(self.noted + j)]


cdef bint hold_open(Noted *noted) noexcept nogil:
    """Open the file that was noted; False if it cannot be had."""
    cdef stat_t found
    cdef int descriptor = open(noted.path, O_RDONLY | O_CLOEXEC)
    if descriptor < 0:
        return False
    if fstat(descriptor, &found) != 0 or not is_as_noted(noted, &found):
        close(descriptor)
        return False
    noted.descriptor = descriptor
    noted.links = found.st_nlink
    noted.touched = nanoseconds(found.st_ctim)
    return True


cdef bint is_changed(Noted *noted) noexcept nogil:
    cdef stat_t found, held
    if noted.descriptor >= 0:
        if fstat(noted.descriptor, &held) != 0:
            return True
        if is_untouched(noted, &held):
            return False
    if stat(noted.path, &found) != 0:
        return False
    if not is_as_noted(noted, &found):
        return True
    if noted.descriptor >= 0:  # it got another name or mode; every thread that comes by notes the same
        noted.links = held.st_nlink
        noted.touched = nanoseconds(held.st_ctim)
    return False


cdef bint is_as_noted(const Noted *noted, const stat_t *found) noexcept nogil:
    return (
        found.st_ino == noted.inode
        and found.st_size == noted.size
        and nanoseconds(found.st_mtim) == noted.modified
    )


cdef bint is_untouched(const Noted *noted, const stat_t *held) noexcept nogil:
    """Whether nothing was done to a file that is held, so that its path still leads to it.

    The count of links tells what the clock is too coarse for: a file replaced as soon as it was noted.
    """
    return (
        held.st_nlink == noted.links
        and nanoseconds(held.st_ctim) == noted.touched
        and is_as_noted(noted, held)
    )


cdef int64_t nanoseconds(timespec time) noexcept nogil:
    return time.tv_sec * 1_000_000_000 + time.tv_nsec
