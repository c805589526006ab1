"""Fixtures for every test: real servers, started on first use."""

pytest_plugins = ["servers.anvil"]
