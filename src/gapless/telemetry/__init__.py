"""What an operator sees: structured logs, metrics, health. The engine tells; nothing here can slow or stop it."""
