"""The directory: who is in the organisation. People see as many others as their role needs, and no more."""

from __future__ import annotations

from typing import Final

from curbside.audit.events import EventName, ObjectType
from curbside.clock import Clock
from curbside.errors import NotFound, TooLarge
from curbside.ids import UserId, decode_id, encode_base64url
from curbside.policy.access import Subject, check_access
from curbside.policy.decision import Duty
from curbside.server.keys import ServerKeys
from curbside.server.people import find_relation, list_shared_people
from curbside.server.recording import About, Actor, Recorder
from curbside.server.store.ports import Change, Store
from curbside.server.store.records import UserRecord
from curbside.wire import bodies
from curbside.wire.frames import PROTOCOL
from curbside.wire.limits import DISPLAY_NAME_CHARS

PAGE: Final = 50
"""People on one page."""


class DirectoryService:
    """Answers who there is."""

    def __init__(self, store: Store, clock: Clock, keys: ServerKeys) -> None:
        self._store = store
        self._keys = keys
        self._recorder = Recorder(clock)

    def describe_organization(self) -> bodies.Organization:
        """The organisation's public keys."""
        return bodies.Organization(
            name=self._keys.organization,
            authority_certificate=encode_base64url(self._keys.authority.raw),
            external_sender=encode_base64url(self._keys.external_sender.encode()),
            protocol=PROTOCOL,
        )

    async def list_people(self, subject: Subject, query: str, after: str) -> bodies.People:
        """One page of people whose name contains `query`, by name. after: last user id of the page before, or "".

        Raises: PolicyDenied; Malformed; TooLarge.
        """
        if len(query) > DISPLAY_NAME_CHARS:
            raise TooLarge(limit=DISPLAY_NAME_CHARS)
        if after:
            decode_id(after)
        hashed = {"query_hash": self._keys.hash_query(query)} if query else {}
        about = About(EventName.DIRECTORY_SEARCH, "R-people-list", extra={**hashed}, refused=EventName.ACCESS_DENIED)

        def search(tx: Change) -> list[UserRecord]:
            decision = check_access("R-people-list", subject)
            found = (
                _page_shared(tx, subject, query, after)
                if Duty.ONLY_SHARED in decision.duties
                else tx.identity.list_users(query, UserId(after) if after else None, PAGE + 1)
            )
            counted = About(about.name, about.rule, extra={**hashed, "count": min(len(found), PAGE)})
            tx.append_audit(self._recorder.done(counted, Actor.of(subject)))
            return found

        found = await self._store.write(search, self._recorder.refused(about, Actor.of(subject)))
        page = found[:PAGE]
        return bodies.People([show_person(user) for user in page], page[-1].user_id if len(found) > PAGE else "")

    async def get_person(self, subject: Subject, user_id: str) -> bodies.Person:
        """One person.

        Raises: NotFound, also when the person is not for the asker to know; Malformed.
        """
        decode_id(user_id)
        target = UserId(user_id)
        about = About(
            EventName.DIRECTORY_VIEWED, "R-people-read", ObjectType.USER, target, refused=EventName.ACCESS_DENIED
        )

        def look_up(tx: Change) -> UserRecord:
            user = tx.identity.find_user(target)
            if user is None:
                raise NotFound
            check_access("R-people-read", subject, find_relation(tx, subject, target))
            tx.append_audit(self._recorder.done(about, Actor.of(subject)))
            return user

        return show_person(await self._store.write(look_up, self._recorder.refused(about, Actor.of(subject))))


def show_person(user: UserRecord) -> bodies.Person:
    """A person as the directory shows it."""
    return bodies.Person(
        user_id=user.user_id,
        name=user.name,
        role=user.role,
        user_certificate=encode_base64url(user.user_certificate),
        enrolment_certificate=encode_base64url(user.enrolment_certificate),
    )


def _page_shared(tx: Change, subject: Subject, query: str, after: str) -> list[UserRecord]:
    people = sorted(list_shared_people(tx, subject), key=lambda user: (user.name.casefold(), user.user_id))
    matching = [user for user in people if query.casefold() in user.name.casefold()]
    ids = [user.user_id for user in matching]
    start = ids.index(UserId(after)) + 1 if after in ids else 0
    return matching[start : start + PAGE + 1]
