"""An app: sources, contracts, tables and handlers, declared in Python or read from gapless.toml. Equal citizens.

app = gapless.App("erc20")
mainnet = app.evm("mainnet", rpc=["http://127.0.0.1:8545"], start=0)
token = mainnet.contract("token", abi="erc20", address="0xA0b8…")

@app.on(token.Transfer)
def holdings(transfer, tables): ...
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

from gapless.declare import bind, key
from gapless.engine.handlers import Handler
from gapless.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from gapless.config import Config
    from gapless.engine.handlers import TableBinding

F = TypeVar("F", bound=Callable[..., None])
C = TypeVar("C")


@dataclasses.dataclass(frozen=True, slots=True)
class EventRef:
    """An event of a contract, to subscribe to with `app.on`."""

    source: str
    contract: str
    event: str

    @property
    def name(self) -> str:
        return f"{self.contract}.{self.event}"


class ContractRef:
    """A declared contract; its events are attributes: `token.Transfer`."""

    def __init__(self, source: str, name: str) -> None:
        self._source = source
        self._name = name

    def event(self, name: str) -> EventRef:
        """An event by name or, where a name is overloaded, by the name its table has."""
        return EventRef(self._source, self._name, name)

    def __getattr__(self, name: str) -> EventRef:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.event(name)


class SourceRef:
    """A declared source."""

    def __init__(self, app: App, name: str) -> None:
        self._app = app
        self.name = name

    def contract(
        self,
        name: str,
        *,
        abi: str | Path | Sequence[Any],
        address: str | Sequence[str] | None = None,
        events: Sequence[str] | None = None,
    ) -> ContractRef:
        """A contract's events as tables `<name>_<event>`. `abi`: a built-in name, a path, or the ABI itself; without
        an address, any contract that emits them."""
        return self._app._add_contract(self.name, name, abi, address, events)  # noqa: SLF001 - one class in two parts


class App:
    """What to follow, and what to make of it."""

    def __init__(self, name: str, *, store: str | None = None, base: Path | None = None, **sections: Any) -> None:
        """`store`: a database URL. `sections`: further parts of the configuration, as in the file
        (`telemetry={"listen": "127.0.0.1:9464"}`). Relative paths start at `base` (default: the working directory)."""
        self._values: dict[str, Any] = {"app": {"name": name}, "sources": {}, "contracts": {}, **sections}
        if store is not None:
            self._values["store"] = {"url": store}
        self._base = base or Path.cwd()
        self._abis: dict[str, Sequence[Any]] = {}
        self._declared: list[tuple[type[Any], str | None]] = []
        self._handlers: list[tuple[str, Handler]] = []
        self._config: Config | None = None

    @classmethod
    def from_config(cls, config: Config) -> App:
        """An app without handlers, as the file describes it."""
        app = cls(config.app.name, base=config.path.parent if config.path else None)
        app._config = config
        return app

    # --- declaring --------------------------------------------------------------------------------------------------

    def evm(self, name: str, *, rpc: Sequence[str] | str, **options: Any) -> SourceRef:
        """An EVM chain. Options are the keys of `[sources.<name>]` in the file (docs/reference/config.md)."""
        return self._add_source(name, {"kind": "evm", "rpc": [rpc] if isinstance(rpc, str) else list(rpc), **options})

    def replay(self, name: str, *, file: str | Path, **options: Any) -> SourceRef:
        """A recorded chain."""
        return self._add_source(name, {"kind": "replay", "file": str(file), **options})

    @dataclass_transform(frozen_default=True, field_specifiers=(key,))
    def table(self, declared: type[C] | None = None, *, source: SourceRef | None = None) -> Any:
        """Make a class a table. With several sources, say which one it belongs to: `@app.table(source=mainnet)`."""

        def declare(cls: type[C]) -> type[C]:
            made = dataclasses.dataclass(frozen=True, kw_only=False)(cls)
            self._declared.append((made, None if source is None else source.name))
            return made

        return declare if declared is None else declare(declared)

    def on(self, event: EventRef, *, batch: bool = False, independent: bool = False) -> Callable[[F], F]:
        """Subscribe a function to an event: `function(event, tables)`, or `function(record_batch, tables)` with
        `batch=True`. `independent`: an event it fails on goes to quarantine instead of stopping its block."""

        def subscribe(function: F) -> F:
            handler = Handler(function.__name__, event.name, function, batch=batch, independent=independent)
            self._handlers.append((event.source, handler))
            return function

        return subscribe

    def _add_source(self, name: str, values: dict[str, Any]) -> SourceRef:
        if name in self._values["sources"]:
            raise ConfigError(f"The source {name!r} is declared twice", todo="Give the second one another name.")
        self._values["sources"][name] = values
        self._config = None
        return SourceRef(self, name)

    def _add_contract(
        self,
        source: str,
        name: str,
        abi: str | Path | Sequence[Any],
        address: str | Sequence[str] | None,
        events: Sequence[str] | None,
    ) -> ContractRef:
        if name in self._values["contracts"]:
            raise ConfigError(f"The contract {name!r} is declared twice", todo="Give the second one another name.")
        values: dict[str, Any] = {"source": source, "abi": str(abi)}
        if not isinstance(abi, str | Path):
            self._abis[name] = abi
            values["abi"] = "python"
        if address is not None:
            values["address"] = address if isinstance(address, str) else list(address)
        if events is not None:
            values["events"] = list(events)
        self._values["contracts"][name] = values
        self._config = None
        return ContractRef(source, name)

    # --- reading ----------------------------------------------------------------------------------------------------

    @property
    def config(self) -> Config:
        """The configuration, with `GAPLESS_…` variables applied. Raises ConfigError."""
        if self._config is None:
            from gapless import config

            self._config = config.parse(self._values, base=self._base, environment=os.environ)
        return self._config

    @property
    def abis(self) -> Mapping[str, Sequence[Any]]:
        """ABIs given as Python values, by contract."""
        return self._abis

    def handlers(self, source: str) -> tuple[Handler, ...]:
        return tuple(h for s, h in self._handlers if s == source)

    def bindings(self, source: str) -> tuple[TableBinding, ...]:
        """The declared tables of one source."""
        return tuple(b for b in self._all_bindings() if b.table.source == source)

    def _all_bindings(self) -> list[TableBinding]:
        names = list(self.config.sources)
        bound = []
        for declared, source in self._declared:
            if source is None and len(names) != 1:
                raise ConfigError(
                    f"Table {declared.__name__} does not say which source it belongs to",
                    todo="Declare it with @app.table(source=…).",
                )
            bound.append(bind(declared, source or names[0]))
        return bound

    def cli(self) -> None:
        """The command line, on this app: `python app.py run`."""
        # By name: the command line stands above apps, which must not depend on it.
        importlib.import_module("gapless.cli").main(app=self)


def load(spec: str | Path) -> App:
    """The app of `-c`: a TOML file, or `path.py:name` / `package.module:name` for an `App` in Python.

    Raises ConfigError and UsageError."""
    text = str(spec)
    file, colon, name = text.rpartition(":")
    if colon and (file.endswith(".py") or not Path(text).exists()) and name.isidentifier():
        return _load_python(file, name)
    if text.endswith(".py"):
        return _load_python(text, "app")
    from gapless import config

    return App.from_config(config.load(Path(text), os.environ))


def _load_python(file: str, name: str) -> App:
    if file.endswith(".py"):
        path = Path(file).absolute()
        if not path.is_file():
            raise UsageError(f"There is no app at {path}", todo="Name a file that exists: `-c app.py:app`.")
        sys.path.insert(0, str(path.parent))
        module_spec = importlib.util.spec_from_file_location(path.stem, path)
        if module_spec is None or module_spec.loader is None:
            raise UsageError(f"{path} cannot be imported")
        module = importlib.util.module_from_spec(module_spec)
        sys.modules[path.stem] = module
        module_spec.loader.exec_module(module)
    else:
        sys.path.insert(0, str(Path.cwd()))
        module = importlib.import_module(file)
    app = getattr(module, name, None)
    if not isinstance(app, App):
        raise UsageError(f"{file} has no gapless.App named {name!r}", todo=f"Define it there: {name} = gapless.App(…).")
    return app
