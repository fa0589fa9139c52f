"""The HTTP interface: all routes, the check that each has its access rule, and errors as problems."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from litestar import Litestar, Request, Response
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from structlog.typing import FilteringBoundLogger

import curbside
from curbside.crypto.random import random_bytes
from curbside.errors import ConfigError, CurbsideError, Malformed, NotFound, TooLarge, UsageError
from curbside.ids import encode_base64url
from curbside.policy.access import find_rule
from curbside.server.logs import LogEvent, find_code, find_place, show_id
from curbside.server.problems import encode_problem
from curbside.server.routes import (
    audit,
    blobs,
    conversations,
    description,
    devices,
    health,
    invites,
    key_packages,
    organization,
    people,
    signin,
    signup,
)
from curbside.server.routes.authentication import provide_authenticated, provide_call, provide_subject
from curbside.server.turned_away import TurnedAway
from curbside.wire import limits as sizes

AnyRequest = Request[Any, Any, Any]
ROUTES: Final[tuple[HTTPRouteHandler, ...]] = (
    audit.get_checkpoint,
    audit.list_audit_events,
    audit.export_audit,
    blobs.create_blob,
    blobs.append_blob,
    blobs.get_blob_offset,
    blobs.get_blob,
    blobs.get_blob_location,
    conversations.list_conversations,
    conversations.get_conversation,
    conversations.create_conversation,
    conversations.append_commit,
    devices.list_devices,
    devices.revoke_device,
    health.get_live,
    health.get_ready,
    description.get_description,
    invites.get_invite,
    invites.create_invite,
    key_packages.publish_key_packages,
    key_packages.count_key_packages,
    key_packages.claim_key_packages,
    organization.get_organization,
    people.list_people,
    people.get_person,
    signin.start_signin,
    signin.finish_signin,
    signin.end_session,
    signup.start_signup,
    signup.finish_signup,
)
"""All HTTP routes; the tables of docs and tests are made from here."""


def check_routes(routes: Sequence[HTTPRouteHandler]) -> None:
    """Deny by default: every route names a rule that exists, and one that is not public takes the asker.

    Raises: ConfigError naming the route.
    """
    if not routes:
        raise ConfigError("the application has no routes")
    for route in routes:
        path = ", ".join(sorted(route.paths))
        rule = find_rule(str(route.opt.get("rule", "")))
        if rule is None:
            raise ConfigError(f"route {path} names no access rule")
        asks = {"subject", "authenticated"} & set(route.fn.__annotations__)
        if not rule.public and not asks:
            raise ConfigError(f"route {path} does not ask who calls, and its rule {rule.id} is not public")


def build_routes(routes: Sequence[HTTPRouteHandler], given: Mapping[str, object], answers: ErrorAnswers) -> Litestar:
    """The HTTP routes under Litestar. given: what handlers may name as a parameter.

    The framework's own pages for a description are not used: they answer unknown paths in HTML.
    """
    return Litestar(
        route_handlers=list(routes),
        dependencies=_build_dependencies({**given, "description": Description(routes, given)}),
        exception_handlers={
            CurbsideError: answers.answer_error,
            HTTPException: answers.answer_http_error,
            RecursionError: answers.answer_depth,
            Exception: answers.answer_mistake,
        },
        openapi_config=None,
        request_max_body_size=sizes.BODY_BYTES,
        logging_config=None,
        debug=False,
    )


class Description:
    """The OpenAPI 3.1 document of the routes; made when somebody asks for it."""

    def __init__(self, routes: Sequence[HTTPRouteHandler], given: Mapping[str, object]) -> None:
        self._routes = routes
        self._given = given
        self._document: dict[str, Any] | None = None

    def get_document(self) -> dict[str, Any]:
        """The document as JSON values."""
        if self._document is None:
            config = OpenAPIConfig(
                title="Curbside",
                version=curbside.__version__,
                description="An end-to-end encrypted messenger for clinicians and patients. See docs/protocol.md.",
                use_handler_docstrings=True,
            )
            given = {**self._given, "description": self}
            app = Litestar(
                route_handlers=list(self._routes),
                dependencies=_build_dependencies(given),
                openapi_config=config,
                logging_config=None,
            )
            self._document = app.openapi_schema.to_schema()
        return self._document


class ErrorAnswers:
    """Errors as problems; what is our own fault also goes to the log, with its place and without its text."""

    def __init__(self, log: FilteringBoundLogger, turned_away: TurnedAway) -> None:
        self._log = log
        self.turned_away = turned_away

    def answer_error(self, request: AnyRequest, error: CurbsideError, status: int = 0) -> Response[bytes]:
        """An error of ours. status: in place of the class's own."""
        request_id = request.scope["state"].get("request_id") or encode_base64url(random_bytes(16))
        if type(error).status >= 500:
            self._log.error(
                LogEvent.REQUEST_FAILED, code=find_code(error), place=find_place(error), request=show_id(request_id)
            )
        found, headers, body = encode_problem(error, request_id, status)
        return Response(body, status_code=found, headers=headers, media_type=headers["content-type"])

    def answer_http_error(self, request: AnyRequest, error: HTTPException) -> Response[bytes]:
        """What the framework refuses, in our words: nothing of the input is repeated."""
        match error.status_code:
            case 404:
                return self.answer_error(request, NotFound())
            case 413:
                return self.answer_error(request, TooLarge(limit=sizes.BODY_BYTES))
            case 405:
                response = self.answer_error(request, Malformed("this method is not allowed here"), 405)
                response.headers.update(error.headers or {})
                return response
            case status if 400 <= status < 500:
                malformed = Malformed("the request does not fit its schema")
                self.turned_away.count(malformed)
                return self.answer_error(request, malformed)
            case _:
                return self.answer_mistake(request, error)

    def answer_depth(self, request: AnyRequest, error: RecursionError) -> Response[bytes]:
        """A body nested deeper than the decoder goes."""
        return self.answer_error(request, Malformed("the request is nested too deeply"))

    def answer_mistake(self, request: AnyRequest, error: Exception) -> Response[bytes]:
        """Anything else is our mistake; the answer says nothing."""
        mistake = UsageError()
        mistake.__cause__ = error
        return self.answer_error(request, mistake)


def _build_dependencies(given: Mapping[str, object]) -> dict[str, Provide]:
    dependencies = {
        "authenticated": Provide(provide_authenticated),
        "subject": Provide(provide_subject),
        "call": Provide(provide_call),
    }
    for name, value in given.items():
        dependencies[name] = Provide(_give(value), sync_to_thread=False)
    return dependencies


def _give(value: Any) -> Callable[[], Any]:
    def give() -> Any:
        return value

    return give
