"""Speed of the whole program on this machine, as a user would run it: `make bench`, or `python -m benchmarks --help`.

A run counts when its rows are right and fails when they are not; how long it took decides nothing.
"""
