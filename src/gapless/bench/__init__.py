"""What `gapless bench` measures: a user's own endpoint, this machine, and the user's own database, and which of them
limits indexing. Everything is bounded in time, and nothing of the app is written: rows go to a scratch database that a
process of its own removes, also when the measuring one is killed.
"""
