"""What the answer to one request may hold of attributes. Imports errors and limits."""

from __future__ import annotations

import threading

from vecstore.errors import InvalidArgument
from vecstore.limits import MAX_ANSWER_BYTES


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
                f"{field}: the answer would hold more than {MAX_ANSWER_BYTES} bytes of attributes; "
                "ask for fewer rows, groups or attributes",
                field=field,
                limit=MAX_ANSWER_BYTES,
            )
