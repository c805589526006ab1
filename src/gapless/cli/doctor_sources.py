"""The doctor's look at sources: are they the right chain, what can each endpoint do, is the clock right."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from gapless.errors import GaplessError, MethodMissing, MissingDatabase, RequestRefused, SourceError

if TYPE_CHECKING:
    from gapless.cli.findings import Findings
    from gapless.cli.project import Project
    from gapless.config import EvmSource
    from gapless.sources.evm.rpc import Rpc

_TIMEOUT_SECONDS = 10.0
_HINT_SECONDS = 5.0
_FUTURE_SECONDS = 60.0


async def examine_source(findings: Findings, project: Project, name: str) -> None:
    """One source: each endpoint by itself, then the whole as the engine sees it."""
    from gapless.config import EvmSource

    settings = project.config.sources[name]
    check = f"source {name}"
    if isinstance(settings, EvmSource):
        await _examine_endpoints(findings, project, check, settings)
    try:
        await _examine_whole(findings, project, check, name)
    except GaplessError as error:
        findings.error(check, error)


async def _examine_whole(findings: Findings, project: Project, check: str, name: str) -> None:
    from gapless.cli.output import span
    from gapless.wiring import build_source

    source = build_source(project.wired[name], None, project.clock)
    try:
        identity = await source.identity()
        findings.ok(check, f"chain {identity.chain}, genesis {identity.genesis}")
        _compare_identity(findings, project, check, name, identity)
        head = await source.head()
        age_seconds = (project.clock.now_us() - head.time_us) / 1e6
        final = "nothing final yet" if head.finalized < 0 else f"final up to {head.finalized}"
        findings.ok(check, f"head {head.latest.position}, {span(max(0.0, age_seconds))} old, {final}")
        if age_seconds < -_FUTURE_SECONDS:
            findings.warn(
                "clock",
                f"the newest block is {span(-age_seconds)} in the future",
                "Set this machine's clock (NTP), unless the chain's own is wrong.",
            )
    finally:
        await source.close()


def _compare_identity(findings: Findings, project: Project, check: str, name: str, identity: Any) -> None:
    settings = project.config.sources[name]
    if settings.chain_id is not None and str(settings.chain_id) != identity.chain:
        findings.fail(check, f"chain_id is {settings.chain_id} in the configuration", "Correct chain_id or rpc.")
    try:
        with project.store() as store:
            bound = store.source(name)
    except MissingDatabase:
        return
    except GaplessError:
        return  # reported by the look at the store
    if bound is not None and bound.identity != identity:
        findings.fail(
            check,
            f"the tables were filled from chain {bound.identity.chain}, genesis {bound.identity.genesis}",
            "Correct rpc, or index this chain into another database.",
        )


# --- endpoints -----------------------------------------------------------------------------------------------------


async def _examine_endpoints(findings: Findings, project: Project, check: str, settings: EvmSource) -> None:
    urls = [url for url in settings.rpc if not url.startswith("ws")]
    for url in urls:
        async with _rpc(project, url) as (rpc, label):
            try:
                await _examine_endpoint(findings, f"{check}, {label}", rpc, settings)
            except SourceError as error:
                fix = error.todo or "Check the address, and that the node is running and may be reached from here."
                findings.fail(f"{check}, {label}", error.what, fix)
    for url in settings.rpc:
        if url.startswith("ws"):
            await _examine_hints(findings, project, check, url)
    if len(urls) == 1 and settings.verify != "proved":
        findings.warn(
            check,
            "there is one endpoint: what it leaves out of a filtered answer can go unseen",
            'Add a second one to rpc, or set verify = "proved".',
        )


@asynccontextmanager
async def _rpc(project: Project, url: str) -> AsyncIterator[tuple[Rpc, str]]:
    from gapless.sources.evm.rpc import Rpc
    from gapless.sources.evm.transport import HttpTransport

    transport = HttpTransport(url)
    try:
        yield Rpc(transport, transport.label, project.clock.now_us), transport.label
    finally:
        await transport.close()


async def _examine_endpoint(findings: Findings, check: str, rpc: Rpc, settings: EvmSource) -> None:
    from gapless.sources.evm.rpc import HEAD, RECEIPTS, TEXT, Call

    async def ask(method: str, shape: Any, *params: Any) -> Any:
        return (await rpc.call(Call(method, params), shape, _TIMEOUT_SECONDS)).value

    client = await _optional(ask("web3_clientVersion", TEXT)) or "a client that does not say its name"
    latest = await ask("eth_getBlockByNumber", HEAD, "latest", False)
    if latest is None:
        findings.fail(check, f"{client} has no latest block", "Wait until the node has synced.")
        return
    findings.ok(check, f"{client}, at {int(latest.number, 16)}")
    for tag in ("safe", "finalized"):
        if settings.finality.value == tag and await _optional(ask("eth_getBlockByNumber", HEAD, tag, False)) is None:
            findings.warn(
                check,
                f"it does not know the block {tag!r}; a depth is used instead",
                'Set finality = "64 blocks", or what this chain promises.',
            )
    if await _optional(ask("eth_getBlockReceipts", RECEIPTS, latest.number)) is None:
        findings.warn(
            check,
            "it lacks eth_getBlockReceipts; receipts are fetched one transaction at a time",
            "Another client or provider is many times faster for whole blocks.",
        )
    await _examine_history(findings, check, ask, settings, int(latest.number, 16))


async def _examine_history(findings: Findings, check: str, ask: Any, settings: EvmSource, latest: int) -> None:
    """Whether the first position is still there, with its logs."""
    from gapless.sources.evm.rpc import HEAD, LOGS

    if not isinstance(settings.start, int) or settings.start > latest:
        return
    number = hex(settings.start)
    try:
        block = await ask("eth_getBlockByNumber", HEAD, number, False)
        await ask("eth_getLogs", LOGS, {"fromBlock": number, "toBlock": number})
    except RequestRefused as error:
        findings.fail(
            check, f"it refuses block {settings.start}: {error.what}", "Use an archive node, or a later start."
        )
        return
    if block is None:
        findings.fail(check, f"it does not have block {settings.start}", "Use an archive node, or a later start.")


async def _optional(asked: Any) -> Any:
    """The answer, or None where the endpoint does not have the method."""
    try:
        return await asked
    except (MethodMissing, RequestRefused):
        return None


async def _examine_hints(findings: Findings, project: Project, check: str, url: str) -> None:
    from gapless.sources.evm.hints import NewHeads
    from gapless.sources.evm.options import EvmOptions

    hints = NewHeads(url, EvmOptions(), project.clock)
    hints.start()
    waited = 0.0
    while not hints.connections and waited < _HINT_SECONDS:
        await project.clock.sleep(0.1)
        waited += 0.1
    await hints.close()
    if hints.connections:
        findings.ok(f"{check}, {hints.label}", "pushes new heads")
    else:
        findings.warn(
            f"{check}, {hints.label}",
            f"no push channel: {hints.last_error or 'it did not answer'}",
            "Correct the address. Until then new heads are found by polling.",
        )
