"""What one person is to another: the facts behind "minimum necessary"."""

from __future__ import annotations

from curbside.ids import UserId
from curbside.policy.access import STAFF, Relation, Subject
from curbside.server.store.ports import View
from curbside.server.store.records import UserRecord


def find_relation(view: View, subject: Subject, target: UserId) -> Relation:
    """What the asker is to a person. Staff are not looked up: their rules do not ask."""
    if target == subject.user_id:
        return Relation.OWN
    if subject.role in STAFF:
        return Relation.NONE
    return Relation.SHARED if target in list_shared_ids(view, subject) else Relation.NONE


def list_shared_ids(view: View, subject: Subject) -> set[UserId]:
    """Users of the conversations that the asking device is in now, itself included."""
    conversations = view.delivery.list_conversations(subject.device_id)
    return {
        member.user_id
        for conversation in conversations
        for member in view.delivery.list_members(conversation.conversation_id)
    }


def list_shared_people(view: View, subject: Subject) -> list[UserRecord]:
    """The people of the asking device's conversations, and the asker."""
    ids = list_shared_ids(view, subject) | {subject.user_id}
    return [user for user_id in ids if (user := view.identity.find_user(user_id)) is not None]
