"""The page of the API, for people."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from flask.testing import FlaskClient

from vecstore.server.openapi import document


class _Read(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name == "href":
                self.links.append(value or "")
            assert not name.startswith("on"), "a script"
            assert name != "style", "what the policy forbids"


@pytest.fixture
def page(client: FlaskClient) -> tuple[_Read, str]:
    answer = client.get("/docs")
    assert answer.status_code == 200
    assert answer.content_type == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    read = _Read()
    read.feed(answer.get_data(as_text=True))
    return read, answer.get_data(as_text=True)


def test_every_operation_and_type_is_on_the_page(page: tuple[_Read, str]) -> None:
    read, _ = page
    told = document()
    operations = [
        item[method]["operationId"]
        for item in told["paths"].values()
        for method in ("get", "post", "put", "patch", "delete")
        if method in item
    ]
    wanted = operations + list(told["components"]["schemas"])
    assert [name for name in wanted if name not in read.ids] == []
    assert len(set(read.ids)) == len(read.ids)


def test_every_link_of_the_page_leads_somewhere(page: tuple[_Read, str], client: FlaskClient) -> None:
    read, _ = page
    for link in set(read.links):
        if link.startswith("#"):
            assert link[1:] in read.ids
        else:
            assert client.get(f"/{link}").status_code == 200, link


def test_the_page_runs_nothing_and_loads_nothing_from_elsewhere(page: tuple[_Read, str]) -> None:
    read, text = page
    assert "script" not in read.tags
    assert not re.search(r"(href|src)=.(https?:)?//", text)
