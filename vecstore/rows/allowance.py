"""What the answer to one request may hold of vectors, attributes and groups. Imports errors and limits.

The same whether it is to cross HTTP or not: what can be asked of an embedded store can be asked of a server.
"""

from __future__ import annotations

import threading
from typing import Final

from vecstore.errors import InvalidArgument
from vecstore.limits import MAX_ANSWER_BYTES

NUMBER_BYTES: Final = 25  # of one of a vector in JSON at most, with its comma: -0.000011660217751341406


class Allowance:
    """Bytes that are left to one request. Safe to share between threads."""

    def __init__(self) -> None:
        self._left = MAX_ANSWER_BYTES
        self._lock = threading.Lock()

    def take(self, size: int, field: str) -> None:
        """Use some bytes, or give them back where ``size`` is negative.

        Raises
        ------
        InvalidArgument
            There are not so many left; ``field`` is what asks for them.
        """
        with self._lock:
            self._left -= size
            beyond = self._left < 0
        if beyond:
            raise InvalidArgument(
                f"{field}: the answer would hold more than {MAX_ANSWER_BYTES} bytes; "
                "ask for fewer rows, groups or attributes",
                field=field,
                limit=MAX_ANSWER_BYTES,
            )

    def take_vectors(self, count: int, dim: int) -> None:
        """Use what vectors take as JSON, before one is read; `InvalidArgument` tells how many may be."""
        most = MAX_ANSWER_BYTES // (dim * NUMBER_BYTES)
        if count > most:
            raise InvalidArgument(
                f"top_k asks for {count} vectors of {dim} numbers; an answer holds at most {most}",
                field="top_k",
                limit=most,
            )
        self.take(count * dim * NUMBER_BYTES, "top_k")
