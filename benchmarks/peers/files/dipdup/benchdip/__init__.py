"""The dipdup package of the benchmark."""
