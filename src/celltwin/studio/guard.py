"""What stands before the page: only this machine's own browser, only bodies of a size, nothing from elsewhere.

A page of another site must not talk to the studio: its name may be made to point at 127.0.0.1 (then the Host is
foreign), or it may post to, or open a websocket at, the right address (then the Origin is). Both are refused, also for
websockets, which no same-origin rule protects.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HOSTS = ("127.0.0.1", "localhost")
ENVELOPE = 1 << 16  # bytes that a form needs around its file
# The page's program is built from text in the browser, hence unsafe-eval; nothing is loaded from another host.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class TooLarge(Exception):
    """A body that goes on beyond what is allowed."""


class Guard:
    """An ASGI app around another that refuses foreign hosts and origins, and bodies above `limit` bytes."""

    def __init__(self, app: App, port: int, limit: int) -> None:
        self.app, self.limit = app, limit
        self.hosts = {f"{host}:{port}" for host in HOSTS} | (set(HOSTS) if port == 80 else set())
        self.origins = {f"http://{host}" for host in self.hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if headers.get(b"host", "").lower() not in self.hosts:
            await refuse(scope, receive, send, 400, "This is not the studio's address: open http://127.0.0.1 instead.")
        elif b"origin" in headers and headers[b"origin"].lower() not in self.origins:
            await refuse(scope, receive, send, 403, "A page of another site may not talk to the studio.")
        elif scope["type"] == "websocket":
            await self.app(scope, receive, send)
        else:
            await self._limited(scope, receive, send, headers.get(b"content-length", ""))

    async def _limited(self, scope: Scope, receive: Receive, send: Send, length: str) -> None:
        most, seen, begun = self.limit + ENVELOPE, 0, False
        if length.isdecimal() and int(length) > most:
            await refuse(scope, receive, send, 413, "The file is larger than the studio takes.")
            return

        async def counted() -> MutableMapping[str, Any]:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:  # a body that did not say how long it is, or lied
                raise TooLarge
            return message

        async def guarded(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
                if seen > most:  # what the app makes of it is an error of its own
                    message["status"] = 413
            await send(message)

        try:
            await self.app(scope, counted, guarded)
        except TooLarge:
            if not begun:
                await refuse(scope, receive, send, 413, "The file is larger than the studio takes.")


async def refuse(scope: Scope, receive: Receive, send: Send, status: int, why: str) -> None:
    """Answer a request, or a websocket that asks to be opened, with a refusal."""
    if scope["type"] == "websocket":
        await receive()  # the request to connect
        await send({"type": "websocket.close", "code": 1008, "reason": why})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close"), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": why.encode()})
