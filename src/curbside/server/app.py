"""The wiring: one ASGI application out of a Config.

    create_app(config)        the application; its start-up opens the store, its shutdown closes it
    build_server(config)      the same under uvicorn, with a shutdown that says good-bye first

A route without an access rule, or one that asks for a session and does not check it, stops the app here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

import uvicorn
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from structlog.typing import FilteringBoundLogger
from uvicorn.server import ServerState

import curbside
from curbside.audit.events import EventName
from curbside.clock import Clock, SystemClock
from curbside.errors import ConfigError, CurbsideError, DeviceRevoked, NotAuthenticated, StoreUnavailable
from curbside.ids import DeviceId, UserId
from curbside.policy.validator import OrganizationValidator
from curbside.server.audit_service import AuditService, AuditSettings
from curbside.server.blob_opening import open_blob_store
from curbside.server.blob_store import INSTALLATION
from curbside.server.blob_sweep import BlobSweep
from curbside.server.blobs import BlobService
from curbside.server.config import Config
from curbside.server.conversations import ConversationService
from curbside.server.database import open_store
from curbside.server.database_key import lock_data_folder
from curbside.server.delivery import DeliveryService
from curbside.server.devices import DeviceService
from curbside.server.directory import DirectoryService
from curbside.server.fanout import Fanout
from curbside.server.gateway import Gateway, GatewayParts
from curbside.server.groups import GroupCache
from curbside.server.health import HealthService
from curbside.server.http_head import TimedHttpProtocol
from curbside.server.identity import IdentityService
from curbside.server.interface import ROUTES, ErrorAnswers, build_routes, check_routes
from curbside.server.invites import InviteService
from curbside.server.key_packages import KeyPackageService, KeyPackageVerifier
from curbside.server.keys import ServerKeys, prepare_keys
from curbside.server.logs import LogEvent, build_logger, find_code, find_place
from curbside.server.metrics import Metrics
from curbside.server.mls_groups import MlsGroups
from curbside.server.node_wiring import NodeWiring, build_nodes, build_presence
from curbside.server.nodes import Nodes
from curbside.server.sessions import SessionService, SessionSettings
from curbside.server.sockets import Socket, Speaker
from curbside.server.store.ports import Store
from curbside.server.stream import StreamEndpoint, StreamParts
from curbside.server.telemetry import open_telemetry
from curbside.server.traced import trace_blobs, trace_store
from curbside.server.tracing import NO_TRACING, Tracing
from curbside.server.turned_away import TurnedAway
from curbside.server.vitals import VitalSigns
from curbside.server.web import WebClient
from curbside.server.websocket import READ_BYTES, WebSocketParts, WebSocketProtocol
from curbside.server.websocket_asgi import serve_websocket

DRAIN_SECONDS: Final = 5.0
FLUSH_SECONDS: Final = 5.0
"""For what was accepted and the end of the audit log, when the database may not come back."""
SWEEP_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a running server consists of."""

    store: Store
    keys: ServerKeys
    audit: AuditService
    sessions: SessionService
    identity: IdentityService
    devices: DeviceService
    directory: DirectoryService
    invites: InviteService
    key_packages: KeyPackageService
    conversations: ConversationService
    delivery: DeliveryService
    blobs: BlobService
    blob_sweep: BlobSweep
    health: HealthService
    fanout: Fanout
    nodes: Nodes
    stream: StreamEndpoint


class CurbsideApp:
    """ASGI application. `services` is there between start-up and shutdown."""

    def __init__(self, config: Config, clock: Clock, routes: Sequence[HTTPRouteHandler]) -> None:
        check_routes(routes)
        self.config = config
        self.services: Services | None = None
        self.failure: CurbsideError | None = None
        """Why it did not start."""
        self._clock = clock
        self._routes = tuple(routes)
        self._log = build_logger(config.log_level)
        self._metrics = Metrics()
        self._telemetry = open_telemetry(config.telemetry, self._metrics, self._log)
        tracing = self._telemetry.tracing
        self._gateway = Gateway(
            GatewayParts(config, WebClient(config.static_folder), clock, self._metrics, self._log, tracing)
        )
        self._answers = ErrorAnswers(self._log, self._gateway.turned_away)
        self._exit = AsyncExitStack()
        self._sweepers: list[asyncio.Task[None]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        match scope["type"]:
            case "http":
                await self._gateway(scope, receive, send)
            case "websocket":
                await serve_websocket(self.admit, scope, receive, send)
            case "lifespan":
                await self._live(receive, send)

    def admit(self, scope: Mapping[str, Any], socket: Socket) -> Speaker:
        """Who talks on a new WebSocket. Raises: CurbsideError, also for any path but the stream's."""
        if self.services is None:
            raise StoreUnavailable
        return self.services.stream.admit(scope, socket)

    async def start(self) -> None:
        """Open what is needed and begin to serve. Raises: ConfigError, Unavailable, IntegrityError."""
        self.config.data_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._exit.enter_context(lock_data_folder(self.config.data_folder))
        try:
            store = trace_store(open_store(self.config), self._telemetry.tracing)
            self._exit.push_async_callback(store.close)
            keys = await prepare_keys(store, _read_authority(self.config))
            self.services = build_services(
                self.config, store, keys, self._clock, self._metrics, self._log, self._telemetry.tracing
            )
            given = list_given(self.services, self.config, self._clock, self._gateway.turned_away)
            self._open_routes(build_routes(self._routes, given, self._answers))
            self._gateway.look = build_vital_signs(self.services, self._clock, self._metrics).refresh
            self._telemetry.start(self._gateway.look)
            self._exit.push_async_callback(self._telemetry.close)
            self.services.delivery.start()
            self.services.nodes.start()
            await self.services.audit.check()
            await self.services.audit.record_lifecycle(EventName.APP_STARTED, curbside.__version__)
            await self.services.audit.record_network(self.config.host, self.config.port, self.config.public_urls)
        except BaseException:
            await self._exit.aclose()
            raise
        self._sweepers = [
            asyncio.create_task(self._sweep(self.services), name="sweeper"),
            asyncio.create_task(self._sweep_blobs(self.services), name="blob sweeper"),
        ]
        self._log.info(LogEvent.SERVER_STARTED, port=self.config.port)

    def _open_routes(self, routes: Litestar) -> None:
        self._gateway.templates = frozenset(route.path_format for route in routes.routes)
        self._gateway.routes = cast("Any", routes)

    async def give_notice(self) -> None:
        """Not ready from now on, so that a proxy sends nobody new; everything is still served for a while."""
        if self.services is not None:
            self._log.info(LogEvent.SERVER_DRAINING, streams=len(self.services.fanout))
            self.services.health.drain()
            await asyncio.sleep(self.config.drain.notice_seconds)

    async def drain(self) -> None:
        """Say good-bye to the streams and finish what was accepted; new requests are told to come back."""
        if self.services is not None:
            self.services.health.drain()
            await self.services.stream.drain(DRAIN_SECONDS, self.config.drain.spread_seconds)

    async def stop(self) -> None:
        """Flush and close; everything acknowledged is durable already."""
        if self.services is None:
            return
        services = self.services
        await self.drain()
        for sweeper in self._sweepers:
            sweeper.cancel()
        await asyncio.gather(*self._sweepers, return_exceptions=True)
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await services.delivery.close()
                await self._gateway.turned_away.write(services.store)
                await services.audit.record_lifecycle(EventName.APP_STOPPED, curbside.__version__)
                await services.audit.make_checkpoint()
        except (CurbsideError, TimeoutError) as error:  # the database is away: nothing more can be written down
            self._log.error(LogEvent.FLUSH_FAILED, code=find_code(error), place=find_place(error))
        await services.nodes.close()
        self.services, self._gateway.routes, self._gateway.look = None, None, None
        await self._exit.aclose()
        self._log.info(LogEvent.SERVER_STOPPED)

    async def _live(self, receive: Any, send: Any) -> None:
        """The lifespan protocol of ASGI."""
        while True:
            event = await receive()
            if event["type"] == "lifespan.startup":
                try:
                    await self.start()
                except CurbsideError as error:
                    self.failure = error
                    await send({"type": "lifespan.startup.failed", "message": f"{error.code}: {error.detail}"})
                    return
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _sweep(self, services: Services) -> None:
        """Now and then: end what is over, make checkpoints that are due."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                services.stream.end_expired()
                await services.sessions.touch_all([each.subject.device_id for each in services.fanout.list_listeners()])
                await services.identity.sweep()
                await services.devices.sweep()
                await self._gateway.turned_away.write(services.store)
                if await services.audit.is_due():
                    await services.audit.make_checkpoint()
            except Exception as error:  # noqa: BLE001 - the next round may succeed; readiness tells what is wrong
                self._log.error(LogEvent.SWEEP_FAILED, code=find_code(error), place=find_place(error))

    async def _sweep_blobs(self, services: Services) -> None:
        """The same for attachments, apart: their storage may be slow, or away."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                report = await services.blob_sweep.sweep()
            except Exception as error:  # noqa: BLE001 - as above
                self._log.error(LogEvent.SWEEP_FAILED, code=find_code(error), place=find_place(error))
                continue
            if report.damaged:
                self._log.error(LogEvent.BLOBS_DAMAGED, count=report.damaged)
            if not report.is_empty:
                counts = {"ended": report.ended, "orphans": report.orphans, "unfinished": report.unfinished}
                self._log.info(LogEvent.SWEPT, **counts, blocked=report.blocked)


def create_app(config: Config, clock: Clock | None = None, routes: Sequence[HTTPRouteHandler] = ROUTES) -> CurbsideApp:
    """The application. Its lifespan opens and closes the store.

    Raises: ConfigError, naming the route that lacks its rule; or what is wrong with the static folder.
    """
    return CurbsideApp(config, clock or SystemClock(), routes)


def build_services(
    config: Config,
    store: Store,
    keys: ServerKeys,
    clock: Clock,
    metrics: Metrics,
    log: FilteringBoundLogger,
    tracing: Tracing = NO_TRACING,
) -> Services:
    """All services, wired to one another."""
    suites = frozenset(config.suites)
    validator = OrganizationValidator(keys.authority.raw, keys.external_sender.encode(), suites)
    sessions = SessionService(store, clock, build_session_settings(config))
    verifier = KeyPackageVerifier(clock, validator, suites)
    fanout = Fanout()
    objects = trace_blobs(open_blob_store(config), tracing)
    opener = MlsGroups(validator, keys.sender)
    cache = GroupCache(store, opener)
    delivery = DeliveryService(store, cache, fanout, clock, metrics)
    presence = build_presence(config, fanout, cache, clock)
    nodes = build_nodes(NodeWiring(config, store, fanout, cache, delivery, presence, metrics, log, tracing))
    service = ConversationService(store, opener, cache, fanout, clock, config.limits.conversations)
    sessions.on_session_ended.append(lambda who: fanout.end_device(who.subject.device_id, NotAuthenticated()))
    revoking = DeviceService(store, clock)
    revoking.on_device_revoked.append(build_revocation(sessions, service, fanout))
    return Services(
        store=store,
        keys=keys,
        audit=AuditService(store, clock, keys, build_audit_settings(config)),
        sessions=sessions,
        identity=IdentityService(store, clock, keys, sessions, validator, verifier),
        devices=revoking,
        directory=DirectoryService(store, clock, keys),
        invites=InviteService(store, clock, keys),
        key_packages=KeyPackageService(store, clock, verifier, config.limits),
        conversations=service,
        delivery=delivery,
        blobs=BlobService(store, objects, clock, config),
        blob_sweep=BlobSweep(store, objects, clock, config.blobs.orphan_seconds),
        health=HealthService(store, clock, nodes.describe, lambda: objects.find(INSTALLATION)),
        fanout=fanout,
        nodes=nodes,
        stream=StreamEndpoint(StreamParts(config, sessions, delivery, presence, fanout, clock, metrics, log)),
    )


def list_given(services: Services, config: Config, clock: Clock, turned_away: TurnedAway) -> dict[str, object]:
    """What the routes' handlers may name as a parameter."""
    return {
        "public_urls": config.public_urls,
        "clock": clock,
        "turned_away": turned_away,
        "audit": services.audit,
        "sessions": services.sessions,
        "identity": services.identity,
        "devices": services.devices,
        "directory": services.directory,
        "invites": services.invites,
        "key_packages": services.key_packages,
        "conversations": services.conversations,
        "blobs": services.blobs,
        "health": services.health,
    }


def build_vital_signs(services: Services, clock: Clock, metrics: Metrics) -> VitalSigns:
    """What is looked up when somebody asks for the counts."""
    return VitalSigns(services.store, services.delivery, services.fanout, services.health, clock, metrics)


def build_session_settings(config: Config) -> SessionSettings:
    """How long sessions last."""
    return SessionSettings(config.sessions.max_seconds, config.sessions.idle_seconds)


def build_audit_settings(config: Config) -> AuditSettings:
    """When checkpoints are due and where their copies go."""
    audit = config.audit
    return AuditSettings(audit.checkpoint_seconds, audit.checkpoint_events, audit.checkpoint_file)


def build_revocation(
    sessions: SessionService, service: ConversationService, fanout: Fanout
) -> Callable[[UserId, DeviceId], Any]:
    """What follows a device's end: its stream closes, and its conversations are asked to remove it."""

    async def end(_: UserId, device_id: DeviceId) -> None:
        fanout.end_device(device_id, DeviceRevoked())
        sessions.forget(device_id)
        await service.propose_removal(device_id)

    return end


class Server(uvicorn.Server):
    """uvicorn, with streams that hear why they end before their sockets close."""

    def __init__(self, config: uvicorn.Config, app: CurbsideApp) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: Any = None) -> None:
        await self._app.give_notice()
        for server in self.servers:
            server.close()
        await self._app.drain()
        await super().shutdown(sockets)


def build_websockets(app: CurbsideApp) -> Callable[..., WebSocketProtocol]:
    """What uvicorn makes of an HTTP connection that asks for a WebSocket."""
    parts = WebSocketParts(app.admit, app.config.limits.ping_seconds, memoryview(bytearray(READ_BYTES)))

    def build(config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any]) -> WebSocketProtocol:
        return WebSocketProtocol(parts, server_state.connections)

    return build


def build_server(config: Config, app: CurbsideApp | None = None) -> Server:
    """A server that listens as the configuration says; `run()` or `await serve()` it. Raises: ConfigError."""
    app = app or create_app(config)
    return Server(
        uvicorn.Config(
            cast("Any", app),
            host=config.host,
            port=config.port,
            ssl_certfile=config.tls.certificate if config.tls else None,
            ssl_keyfile=config.tls.key if config.tls else None,
            http=cast("Any", partial(TimedHttpProtocol, config.limits.head_seconds)),
            ws=cast("Any", build_websockets(app)),
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=10,
            h11_max_incomplete_event_size=32 * 1024,
        ),
        app,
    )


def _read_authority(config: Config) -> bytes:
    try:
        return config.authority_path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the authority certificate cannot be read: {error.strerror}") from error
