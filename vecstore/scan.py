"""A scan as its caller sees it: rows or pages, read as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from vecstore.types import Row, ScanPage, ScanParams


@dataclass(frozen=True, slots=True)
class Scan:
    """Rows of one epoch. Each iteration begins anew, at the current epoch unless ``params`` names one."""

    read: Callable[[ScanParams], ScanPage]
    params: ScanParams

    def __iter__(self) -> Iterator[Row]:
        for page in self.pages():
            yield from page

    def pages(self) -> Iterator[ScanPage]:
        """The pages; one may be empty. Each names the ``cursor`` of the next."""
        asked = self.params
        while True:
            page = self.read(asked)
            yield page
            if page.cursor is None:
                return
            asked = replace(asked, cursor=page.cursor)
