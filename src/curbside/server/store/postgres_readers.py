"""The reading threads of the PostgreSQL store, each with a connection of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import psycopg

from curbside.server.store.ports import View
from curbside.server.store.postgres_audit import EventsWaitError, PostgresAudit
from curbside.server.store.postgres_open import PostgresSettings, connect
from curbside.server.store.postgres_session import Session, map_postgres_error

T = TypeVar("T")


class _View(View, Protocol):
    @property
    def audit(self) -> PostgresAudit: ...


class PostgresReaders:
    """Threads that answer questions. make_view: how a question sees a connection."""

    def __init__(self, settings: PostgresSettings, make_view: Callable[[Session], _View], count: int) -> None:
        self._settings = settings
        self._make_view = make_view
        self._local = threading.local()
        self._opened: set[Session] = set()
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="store-reader")

    async def ask(self, question: Callable[[Any], T]) -> T:
        """The answer, from one consistent state. Raises: StoreUnavailable, IntegrityError."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._answer, question)

    def close(self) -> None:
        """Answer what was asked, then close."""
        self._pool.shutdown(wait=True)
        for session in self._opened:
            session.close()

    def _answer(self, question: Callable[[Any], T]) -> T:
        try:
            try:
                return self._ask_once(question)
            except psycopg.Error:
                if not self._forget_lost():
                    raise
            return self._ask_once(question)  # looking twice does no harm
        except psycopg.Error as error:
            self._forget_lost()
            raise map_postgres_error(error) from error

    def _ask_once(self, question: Callable[[Any], T]) -> T:
        session: Session | None = getattr(self._local, "session", None)
        if session is None:
            session = connect(self._settings)
            self._opened.add(session)
            self._local.session, self._local.view = session, self._make_view(session)
        view: _View = self._local.view
        session.begin_reading()
        try:
            return question(view)
        except EventsWaitError:
            session.rollback()
            view.audit.place_events()
            session.begin_reading()
            session.has_placed_events = True
            return question(view)
        finally:
            session.rollback()

    def _forget_lost(self) -> bool:
        session: Session | None = getattr(self._local, "session", None)
        if session is None or session.recover():
            return False
        self._opened.discard(session)
        self._local.session = self._local.view = None
        return True
