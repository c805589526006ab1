"""What a run counts can be scraped under its own name."""

from __future__ import annotations

from prometheus_client import generate_latest

import gapless
from gapless.cli.observers import Service, Watching
from gapless.cli.project import Project
from gapless.sources import SourceStatistics
from gapless.sources.evm.audit import MISMATCH
from gapless.sources.evm.lies import LIES


def test_every_kind_of_contradiction_has_its_series() -> None:
    """Each word that a source counts contradictions by is a label from the first scrape, and none counts as `other`."""
    app = gapless.App("a", telemetry={"listen": "127.0.0.1:0"})
    app.evm("mainnet", rpc=["http://127.0.0.1:1"])
    project = Project(app)
    service = Service(project, Watching(project.config.sources, project.clock))
    service.server.start()
    service.server.close()
    kinds = [*LIES, MISMATCH]
    service.metrics.source_statistics("mainnet", SourceStatistics(contradictions=dict.fromkeys(kinds, 1)))
    scraped = generate_latest(service.metrics.registry).decode()  # type: ignore[attr-defined]
    for kind in kinds:
        assert f'gapless_contradictions_total{{kind="{kind}",source="mainnet"}} 1.0' in scraped
    assert 'gapless_contradictions_total{kind="other",source="mainnet"} 0.0' in scraped
