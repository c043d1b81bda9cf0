"""What a server's ``/metrics`` says, parsed by the library's own parser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import urllib3
from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Scrape:
    """One answer of ``/metrics``."""

    samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float]

    def value(self, name: str, **labels: str) -> float:
        """Of one sample; 0 if there is none."""
        return self.samples.get((f"vecstore_{name}", frozenset(labels.items())), 0.0)

    def total(self, name: str, **labels: str) -> float:
        """Of all samples that have these labels."""
        return sum(value for _, value in self.having(name, **labels))

    def having(self, name: str, **labels: str) -> Iterator[tuple[dict[str, str], float]]:
        for (found, pairs), value in self.samples.items():
            if found == f"vecstore_{name}" and labels.items() <= pairs:
                yield dict(pairs), value

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.samples}


def parse(text: str) -> Scrape:
    return Scrape(
        {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    )


def scrape(url: str) -> Scrape:
    answer = urllib3.request("GET", f"{url}/metrics", timeout=30.0, retries=False)
    assert answer.status == 200, answer.data
    return parse(answer.data.decode())
