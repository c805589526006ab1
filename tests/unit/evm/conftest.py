"""The chain most tests of the EVM source use; some files bring one of their own."""

from __future__ import annotations

import pytest

from gapless.testing.chain import ScriptedChain
from unit.evm.source_scene import HEIGHT


@pytest.fixture(scope="module")
def template() -> ScriptedChain:
    chain = ScriptedChain(seed=7)
    chain.mine(HEIGHT, logs=lambda n: ScriptedChain(seed=7)._script(n, 0, 6)[0].logs if n % 3 else ())
    return chain


@pytest.fixture
def chain(template: ScriptedChain) -> ScriptedChain:
    return template.copy()
