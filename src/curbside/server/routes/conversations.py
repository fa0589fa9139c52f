"""Routes of conversations: GET and POST /v1/conversations, GET /v1/conversations/{id}, POST …/commits."""

from __future__ import annotations

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from curbside.ids import ConversationId
from curbside.policy.access import Subject
from curbside.server.conversations import ConversationService
from curbside.wire import bodies


@get("/v1/conversations", opt={"rule": "R-conversations-list"})
async def list_conversations(
    subject: NamedDependency[Subject], conversations: NamedDependency[ConversationService]
) -> bodies.ConversationList:
    """Those the asking device is a member of."""
    return bodies.ConversationList(await conversations.list_states(subject))


@get("/v1/conversations/{conversation_id:str}", opt={"rule": "R-conversation-read"})
async def get_conversation(
    conversation_id: FromPath[str],
    subject: NamedDependency[Subject],
    conversations: NamedDependency[ConversationService],
) -> bodies.ConversationState:
    """What the server holds of a conversation."""
    return await conversations.get_state(subject, ConversationId(conversation_id))


@post("/v1/conversations", status_code=200, opt={"rule": "R-conversation-create"})
async def create_conversation(
    data: JSONBody[bodies.NewConversation],
    subject: NamedDependency[Subject],
    conversations: NamedDependency[ConversationService],
) -> bodies.ConversationState:
    """Begin a conversation with a group of one."""
    return await conversations.create(subject, data)


@post("/v1/conversations/{conversation_id:str}/commits", status_code=200, opt={"rule": "R-conversation-commit"})
async def append_commit(
    conversation_id: FromPath[str],
    data: JSONBody[bodies.NewCommit],
    subject: NamedDependency[Subject],
    conversations: NamedDependency[ConversationService],
) -> bodies.Appended:
    """End the current epoch with a signed commit."""
    return await conversations.commit(subject, ConversationId(conversation_id), data)
