"""Refusals name the same value each time: a run that is played again, from its seed, says the same."""

from __future__ import annotations

import msgspec
import pytest

from gapless.errors import Contradiction
from gapless.sources.evm.types import Log, LogClause
from gapless.sources.evm.verify import check_filtered_logs
from gapless.testing import TOKEN, TRANSFER_TOPIC, ScriptedChain, word

EVERYTHING = LogClause(None, None)
VALUES = [word(1000 + n) for n in range(30)]


def replace_topics(log: Log, index: int, value: str, address: str = TOKEN) -> Log:
    """A log like this one, at another place and about another value."""
    return msgspec.structs.replace(log, log_index=hex(index), topics=[log.topics[0], value], address=address)


def test_the_smallest_of_what_a_bloom_denies_is_named() -> None:
    """Of many values that a block's bloom denies, the refusal names the smallest, whatever the order of a set."""
    chain = ScriptedChain(seed=1)
    [block] = chain.mine(logs=1)
    [log] = block.logs
    logs = [replace_topics(log, index, value) for index, value in enumerate(VALUES)]
    with pytest.raises(Contradiction, match=f"denies {min(VALUES)},") as caught:
        check_filtered_logs([block.header], logs, [EVERYTHING])
    assert caught.value.kind == "not_in_bloom"


def test_the_first_of_what_was_not_asked_for_is_named() -> None:
    """Of many logs that the filter did not ask for, the refusal names one that does not depend on a set's order."""
    chain = ScriptedChain(seed=1)
    [block] = chain.mine(logs=1)
    [log] = block.logs
    others = [f"0x{n:040x}" for n in range(100, 130)]
    logs = [replace_topics(log, index, word(1), address) for index, address in enumerate(others)]
    with pytest.raises(Contradiction, match=f"A log of {min(others)} ") as caught:
        check_filtered_logs([block.header], logs, [LogClause(frozenset({TOKEN}), frozenset({TRANSFER_TOPIC}))])
    assert caught.value.kind == "not_asked_for"
