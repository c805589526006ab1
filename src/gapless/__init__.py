"""Gapless: follow ordered sources for ever and turn them into tables."""
