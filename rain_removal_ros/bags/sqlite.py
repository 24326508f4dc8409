"""Reads SQLite recordings, damaged ones too: row by row as far as possible, journal included.

A database is a program as much as a file: a view can run for ever, and so can a table whose pages
point at each other. So only plain tables are read, the time for each row is limited, and a file
cannot yield more rows and bytes than its size has room for.
"""

from __future__ import annotations

import re
import sqlite3
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rain_removal_ros.bags.messages import Channel, Message, canonical, qos_of
from rain_removal_ros.bags.unpacking import UnpackLimit
from rain_removal_ros.errors import BagError

__all__ = ["SqlitePart"]

_TABLE = re.compile(r"\s*CREATE\s+TABLE\b", re.IGNORECASE)
_STEPS = 100_000
"""Steps of SQLite's virtual machine between two checks of the time taken."""
_MOST_LOOKS = 1000
"""The most checks for one row: seconds. A row takes a few dozen steps."""
_LEAST_ROW_BYTES = 6
_MOST_TOPICS = 10_000


class SqlitePart:
    """An SQLite recording, open for reading."""

    def __init__(self, path: Path, limit: UnpackLimit) -> None:
        self.path = path
        self.losses: list[str] = []
        self.start_ns, self.end_ns = 2**63 - 1, 0
        self.counts: Counter[Channel] = Counter()
        self._limit = limit
        self.packed_bytes = path.stat().st_size
        self._looks = 0
        self._size = path.stat().st_size
        try:
            self._base = self._opened()
        except sqlite3.Error as error:
            raise BagError(f"{path} cannot be read: {error}") from error
        try:
            self._by_id = self._read_topics()
            self.channels = list(dict.fromkeys(self._by_id.values()))
            self._order = self._read_order()
        except sqlite3.Error as error:
            self.close()
            raise BagError(f"{path} cannot be read: {error}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._base.close()

    def messages(
        self, channels: set[Channel], start_ns: int | None, stop_ns: int | None
    ) -> Iterator[Message]:
        """All messages, in order of time."""
        first = -(2**63) if start_ns is None else start_ns
        last = 2**63 if stop_ns is None else stop_ns
        left = self._size
        for data, stamp, topic in self._rows():
            channel = self._by_id.get(topic)
            if channel not in channels or not first <= stamp < last:
                continue
            assert channel is not None
            if not isinstance(data, bytes):
                self._lose(f"{self.path.name} has messages that are not bytes")
                continue
            left -= len(data)
            if left < 0:
                self._lose(f"{self.path.name} is damaged: it holds more than its size has room for")
                return
            yield Message(channel, stamp, data)

    def _rows(self) -> Iterator[tuple[Any, int, Any]]:
        """Data, time and topic of every message."""
        query = "SELECT data, timestamp, topic_id FROM messages"
        if self._order is None:
            yield from self._stepped(f"{query} ORDER BY rowid LIMIT {self._count}")
        else:
            for row in self._order:
                yield from self._stepped(f"{query} WHERE rowid = ?", (row,))

    # --- Opening -----------------------------------------------------------------------------

    def _opened(self) -> sqlite3.Connection:
        """Open the database with its journal, or without if that cannot be used."""
        name = quote(str(self.path.absolute()))
        for mode in ("mode=ro", "immutable=1"):
            base = sqlite3.connect(f"file:{name}?{mode}", uri=True, check_same_thread=False)
            try:
                self._guard(base)
                base.execute("SELECT count(*) FROM sqlite_master").fetchall()
            except sqlite3.Error:
                base.close()
                if mode == "immutable=1":
                    raise
                continue
            return base
        raise AssertionError  # the second either works or raises

    def _guard(self, base: sqlite3.Connection) -> None:
        base.text_factory = lambda text: text.decode("utf-8", "replace")
        base.execute("PRAGMA trusted_schema = OFF")
        # Without this, a file that is shorter than it says is not read at all.
        base.execute("PRAGMA writable_schema = ON")
        if hasattr(base, "setlimit"):  # Python 3.11
            limit = min(self._limit.chunk_bytes, 2**31 - 1)
            base.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limit)
        base.set_progress_handler(self._is_too_long, _STEPS)

    def _is_too_long(self) -> bool:
        self._looks += 1
        return self._looks > _MOST_LOOKS

    def _columns(self, table: str) -> set[str]:
        """The columns of a table except computed ones; empty if there is no table."""
        query = "SELECT type, sql FROM sqlite_master WHERE lower(name) = ?"
        for kind, text in self._base.execute(query, (table,)):
            if kind != "table" or not isinstance(text, str) or not _TABLE.match(text):
                raise BagError(f"{self.path} is not a recording: its {table} are not a plain table")
        return {str(row[1]) for row in self._base.execute(f"PRAGMA table_info({table})")}

    def _read_topics(self) -> dict[int, Channel]:
        columns = self._columns("topics")
        if not columns:
            raise BagError(f"{self.path} is not a recording: it has no table of topics")
        if not {"data", "timestamp", "topic_id"} <= self._columns("messages"):
            raise BagError(f"{self.path} is not a recording: it has no table of messages")
        if not {"id", "name", "type", "serialization_format"} <= columns:
            raise BagError(f"{self.path} is not a recording: its table of topics is another's")
        definitions: dict[str, str] = {}
        if {"topic_type", "encoded_message_definition"} <= self._columns("message_definitions"):
            query = "SELECT topic_type, encoded_message_definition FROM message_definitions"
            definitions = {
                name: text
                for name, text in self._stepped(f"{query} LIMIT {_MOST_TOPICS}")
                if isinstance(name, str) and isinstance(text, str)
            }
        qos = "offered_qos_profiles" if "offered_qos_profiles" in columns else "''"
        query = f"SELECT id, name, type, serialization_format, {qos} FROM topics"
        found: dict[int, Channel] = {}
        for number, *texts in self._stepped(f"{query} LIMIT {_MOST_TOPICS}"):
            if not isinstance(number, int) or not all(isinstance(text, str) for text in texts):
                self._lose(f"{self.path.name} has a topic whose name or type is not text")
                continue
            topic, msgtype, encoding, profiles = texts
            definition = definitions.get(msgtype, "")
            found[number] = Channel(
                topic, canonical(msgtype), definition, encoding, qos_of(profiles)
            )
        return found

    def _read_order(self) -> array[int] | None:
        """Row numbers in order of time; None if that is the order they were written in.

        Also counts the rows.
        """
        rows, stamps = array("q"), array("q")
        most = self._size // _LEAST_ROW_BYTES
        query = f"SELECT rowid, timestamp, topic_id FROM messages ORDER BY rowid LIMIT {most}"
        self._count = 0
        for row, stamp, topic in self._stepped(query):
            self._count += 1
            if not isinstance(stamp, int) or not isinstance(row, int):
                self._lose(f"{self.path.name} has messages whose time is not a number")
                continue
            if (channel := self._by_id.get(topic)) is not None:
                self.counts[channel] += 1
                self.start_ns, self.end_ns = min(self.start_ns, stamp), max(self.end_ns, stamp)
                rows.append(row)
                stamps.append(stamp)
        if len(rows) == self._count and all(
            stamps[index] <= stamps[index + 1] for index in range(len(stamps) - 1)
        ):
            return None
        return array(
            "q", (rows[index] for index in sorted(range(len(rows)), key=stamps.__getitem__))
        )

    def _stepped(self, query: str, values: tuple[int, ...] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, as far as they can be read."""
        self._looks = 0
        try:
            for row in self._base.execute(query, values):
                yield row
                self._looks = 0
        except sqlite3.Error as error:
            self._lose(f"{self.path.name} is damaged; what comes after is lost ({error})")

    def _lose(self, what: str) -> None:
        if what not in self.losses:
            self.losses.append(what)
