"""Faults in the journals: durability, recovery, damage, trim, water."""

from tests.mutation.mutant import Mutant

_MEMORY = "contract/test_journal_memory.py::TestMemoryJournal"
_FILE = "contract/test_journal_file.py::TestFileJournal"
_FORGETFUL = "contract/test_journal_file.py::TestFileJournalInMemory"
_REFUSING = "unit/journal/test_disk_says_no.py::test_a_disk_that_refuses_loses_nothing"
_DAMAGE = "unit/journal/test_damage.py"

DURABLE = (
    Mutant(
        "journal-append-unsynced",
        "journal/file.py",
        "            file.write_at(segment.size, data)\n            file.sync()\n        for",
        "            file.write_at(segment.size, data)\n        for",
        "an append is acknowledged from the page cache",
        f"{_FORGETFUL}::test_what_was_acknowledged_survives_a_power_cut",
    ),
    Mutant(
        "journal-segment-unnamed",
        "journal/file.py",
        "        self._disk.sync_folder(self.folder)\n        self._segments.append(segment)",
        "        self._segments.append(segment)",
        "the name of a new segment is not durable",
        f"{_FORGETFUL}::test_what_was_acknowledged_survives_a_power_cut",
    ),
    Mutant(
        "journal-page-cache-trusted",
        "journal/file.py",
        "        if tail:\n            self._rewrite(tail)",
        "        if False:\n            self._rewrite(tail)",
        "what is readable after a failed sync counts as durable",
        _REFUSING,
    ),
    Mutant(
        "journal-goes-on-after-failure",
        "journal/file.py",
        "            self._trouble = error\n",
        "            self._trouble = None\n",
        "after a failed sync the journal carries on",
        _REFUSING,
    ),
    Mutant(
        "journal-consumer-in-memory",
        "journal/file.py",
        "            self._consumers.add(consumer, self._floor)\n            with self._explained():\n"
        "                self._write_books()",
        "            self._consumers.add(consumer, self._floor)",
        "a consumer is known to this process only",
        f"{_FORGETFUL}::test_a_consumer_is_not_forgotten",
    ),
    Mutant(
        "journal-ids-forgotten",
        "journal/file.py",
        "        self._drop_trimmed()\n        self._fill_recent()",
        "        self._drop_trimmed()",
        "after a restart a retry is appended again",
        f"{_FORGETFUL}::test_ids_are_known_after_a_restart",
    ),
)

DAMAGE = (
    Mutant(
        "journal-checksum-ignored",
        "journal/blocks.py",
        "return data if _masked(extend(_TYPE_CRC[kind], data)) == crc else None",
        "return data",
        "bytes are taken as they are",
        f"{_DAMAGE}::test_a_flipped_bit_is_named_wherever_it_is[0]",
    ),
    Mutant(
        "journal-damage-swallowed",
        "journal/file.py",
        "                    if out:\n                        break\n                    raise",
        "                    if out or found:\n                        continue\n                    raise",
        "a reader is taken past damage in silence",
        f"{_FILE}::test_damage_in_the_middle_is_named",
    ),
    Mutant(
        "journal-proof-ignored",
        "journal/segment.py",
        "            if piece.proved > proved:",
        "            if False:",
        "damage in the newest segment is taken for a torn tail",
        f"{_DAMAGE}::test_a_flip_after_a_kill_spares_what_was_proved",
    ),
    Mutant(
        "journal-traces-ignored",
        "journal/segment.py",
        "                if missed:",
        "                if False:",
        "what lies behind damage in its block is taken for torn",
        f"{_DAMAGE}::test_a_damaged_header_does_not_hide_what_is_behind_it",
    ),
    Mutant(
        "journal-end-not-missed",
        "journal/file.py",
        "        if books.promised > self._last:",
        "        if False:",
        "a journal cut at its end is a shorter journal",
        f"{_DAMAGE}::test_a_tail_cut_after_an_orderly_end_is_named",
    ),
    Mutant(
        "journal-torn-thrown-away",
        "journal/file.py",
        '        if torn.strip(b"\\0"):',
        "        if False:",
        "bytes that could not be read are overwritten",
        f"{_DAMAGE}::test_torn_bytes_are_kept_where_their_file_is_taken",
    ),
)

BUFFER = (
    Mutant(
        "journal-trim-passes-a-consumer",
        "journal/consumers.py",
        "else min(upto, slowest))",
        "else upto)",
        "a trim goes as far as it is told",
        f"{_MEMORY}::test_a_trim_waits_for_the_slowest",
    ),
    Mutant(
        "journal-trimmed-passed-over",
        "journal/log.py",
        "    if after < floor:",
        "    if False:",
        "a reader gets what comes after the trimmed",
        f"{_FILE}::test_what_was_trimmed_is_not_passed_over",
    ),
    Mutant(
        "journal-retry-doubled",
        "journal/limits.py",
        "known = self._positions.get(message.id) or within.get(message.id)",
        "known = within.get(message.id)",
        "an id that is there is appended again",
        f"{_MEMORY}::test_a_retry_adds_nothing",
    ),
    Mutant(
        "journal-low-water-skipped",
        "journal/limits.py",
        "        elif records <= limits.records_low and bytes_held <= limits.bytes_low:",
        "        else:",
        "appends go on as soon as the journal is below high water",
        f"{_MEMORY}::test_an_append_waits_from_high_to_low_water",
    ),
    Mutant(
        "journal-readers-not-woken",
        "journal/shell.py",
        "        self._grown.set()\n        self._grown = asyncio.Event()\n        return None",
        "        return None",
        "a waiting reader sleeps until its time is over",
        f"{_MEMORY}::test_a_waiting_reader_gets_what_comes",
    ),
)

JOURNAL: tuple[Mutant, ...] = (*DURABLE, *DAMAGE, *BUFFER)
