"""The other indexers that can be installed from npm and PyPI, at the same job on the same node in the same run.

`installing` puts each into a folder of its own below .tools/bench/peers, from the pins in `files`; `contenders` says
how each is started and where its rows lie. One that cannot be installed here is left out, with the reason.
"""
