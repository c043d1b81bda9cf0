"""Which namespaces a process holds open: a bounded number, the ones used last.

An open namespace holds its manifest, the heads of its parts and their live rows, so a process that is
asked for thousands in turn must let go of some (promise P8). Nothing is lost with one: it is opened
anew from the store.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from weakref import WeakValueDictionary

from vecstore.engine.namespace import NamespaceEngine
from vecstore.errors import DatabaseClosed
from vecstore.rows.ids import validate_name


class OpenNamespaces:
    """Namespaces by name. Thread-safe.

    One that had to make room but is still in use by somebody stays the one of its name, so that commits
    of a process are grouped and its snapshots only move forward (R14).

    Parameters
    ----------
    most
        Held open, but for those that are in use.
    open_one
        Makes a namespace's engine; what it raises, `get` raises.
    opened
        Told how many are held open whenever one is opened.
    """

    def __init__(
        self,
        most: int,
        open_one: Callable[[str], NamespaceEngine],
        opened: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._most = most
        self._opened_one = opened
        self._open_one = open_one
        self._lock = threading.Lock()
        self._held: dict[str, NamespaceEngine] = {}
        self._known: WeakValueDictionary[str, NamespaceEngine] = WeakValueDictionary()
        self._closed = False
        self._opened = 0  # the clock by which uses are ordered, so that a use takes no lock

    def __len__(self) -> int:
        """Of those held open."""
        return len(self._held)

    def get(self, name: str) -> NamespaceEngine:
        """The engine of a name; it counts as used.

        Raises
        ------
        InvalidArgument, DatabaseClosed
            It can be no name; they were closed.
        """
        engine = self._held.get(name) if type(name) is str else None
        if engine is None:
            engine = self._admit(validate_name(name))
        engine.last_use = self._opened
        return engine

    def close(self) -> None:
        """Let go of all, and open none any more."""
        with self._lock:
            self._closed = True
            self._held.clear()

    def check(self) -> None:
        """`DatabaseClosed` if they were closed."""
        if self._closed:
            raise DatabaseClosed("the database was closed; connect again")

    def _admit(self, name: str) -> NamespaceEngine:
        with self._lock:
            self.check()
            engine = self._held.get(name)
            if engine is None:
                engine = self._known.get(name)
                if engine is None:
                    engine = self._open_one(name)
                while len(self._held) >= self._most:
                    del self._held[min(self._held, key=lambda other: self._held[other].last_use)]
                self._opened += 1
                self._held[name] = self._known[name] = engine
                self._opened_one(len(self._held))
            return engine
