"""A scan as its caller sees it: rows or pages, read as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

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

    def to_arrow(self) -> Any:
        """All rows as one ``pyarrow.Table``, as `ScanPage.to_arrow`. Extra ``arrow``."""
        from vecstore.arrow import pyarrow

        tables = [page.to_arrow() for page in self.pages()]
        # An empty page of a namespace without rows does not know the kind of its ids.
        return pyarrow("Arrow").concat_tables([table for table in tables if len(table)] or tables[:1])

    def to_pandas(self) -> Any:
        """All rows as one ``pandas.DataFrame``. Extra ``pandas``."""
        from vecstore.arrow import to_pandas

        return to_pandas(self.to_arrow())

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """For whatever takes Arrow: ``polars.DataFrame(ns.scan())``."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)
