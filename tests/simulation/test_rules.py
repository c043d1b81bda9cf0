"""Each rule of the protocol, switched off, breaks a promise that the simulation sees."""

from __future__ import annotations

import pytest

from tests.simulation.ledger import PromiseBroken
from tests.simulation.rules import RULES
from tests.simulation.world import Setup, simulate

SEEDS = 24  # one in eight may see a rule that is off
STEPS = 1_500


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.play is None])
def test_chance_finds_a_rule_that_is_switched_off(name: str) -> None:
    rule = RULES[name]
    for seed in range(rule.seed, rule.seed + SEEDS):
        try:
            with rule.off():
                simulate(rule.setup(Setup.of(seed, STEPS)))
        except PromiseBroken:
            return
    pytest.fail(f"{name}: {rule.bug}, and {SEEDS} seeds of {STEPS} steps do not see it")


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.play is not None])
def test_a_directed_schedule_finds_a_rule_that_is_switched_off(name: str) -> None:
    rule = RULES[name]
    simulate(Setup.directed(), rule.play)
    with rule.off(), pytest.raises(PromiseBroken):
        simulate(Setup.directed(), rule.play)
