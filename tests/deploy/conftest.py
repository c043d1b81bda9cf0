"""nginx as delivered in front of ``vecstore serve``, with one namespace."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deploy.site import Site, site_of

QUICK = {  # so that tests need not wait for long
    "client_header_timeout 10s": "client_header_timeout 2s",
    "client_body_timeout 15s": "client_body_timeout 2s",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site_of(tmp_path_factory.mktemp("site"), QUICK) as site:
        yield site
