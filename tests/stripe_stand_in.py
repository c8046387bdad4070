"""
A stand-in for the part of Stripe's API that charges invoices, over HTTP, as its documentation describes it: form-encoded
bodies, Idempotency-Keys (https://docs.stripe.com/api/idempotent_requests), errors (https://docs.stripe.com/api/errors), lists
in pages, and signed events (https://docs.stripe.com/webhooks/signatures). It can fail before and after it has acted.
"""

import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

KEY = "sk_test_stand_in"
NESTED = re.compile(r"\[([^\]]*)\]")
Object = dict[str, Any]


class Refusal(Exception):
    def __init__(self, status: int, type_: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"type": type_, "message": message}}


@dataclass
class Kept:
    """A key's first request, and its answer once there is one."""

    request: tuple[str, str, str]
    answer: tuple[int, Object] | None = None


@dataclass
class Stripe:
    """What Stripe knows, and how it misbehaves."""

    customers: dict[str, Object] = field(default_factory=dict)
    invoices: dict[str, Object] = field(default_factory=dict)
    items: dict[str, Object] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    fault: Callable[[int, str], str | None] = lambda number, call: None
    """By the call's number, from 1, and its method and path: `lost` before it acts, `unheard` after it, `500` after it."""
    delay_s: float = 0.0
    url: str = ""
    _keys: dict[str, Kept] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def forget_keys(self) -> None:
        """A day has passed."""
        self._keys.clear()

    def pay(self, invoice_id: str) -> None:
        self.invoices[invoice_id] |= {"status": "paid", "attempted": True}

    def fail(self, invoice_id: str) -> None:
        self.invoices[invoice_id] |= {"status": "open", "attempted": True}

    def amount(self, invoice_id: str) -> int:
        return sum(item["amount"] for item in self.items.values() if item["invoice"] == invoice_id)

    def answer(self, method: str, path: str, body: str, headers: Any) -> tuple[int, Object]:
        if headers.get("Authorization") != f"Bearer {KEY}":
            raise Refusal(401, "invalid_request_error", "Invalid API Key provided")
        key = headers.get("Idempotency-Key") if method == "POST" else None
        with self._lock:
            kept = self._keys.get(key or "")
            if kept is not None:
                if kept.request != (method, path, body):
                    message = "Keys for idempotent requests can only be used with the same parameters they were first used with."
                    raise Refusal(400, "idempotency_error", message)
                if kept.answer is None:
                    raise Refusal(409, "idempotency_error", "Another request with this key is in progress.")
                return kept.answer
            if key:
                self._keys[key] = Kept((method, path, body))
        try:
            answer = 200, self._act(method, path, body)
        except Refusal as refusal:
            answer = refusal.status, refusal.body
        if key:
            self._keys[key].answer = answer
        return answer

    def fail_kept(self, key: str | None) -> None:
        """A 500 is kept as any other answer is."""
        if key:
            self._keys[key].answer = 500, {"error": {"type": "api_error", "message": "Something went wrong."}}

    def _act(self, method: str, path: str, body: str) -> Object:
        address = urlsplit(path)
        values = parsed(address.query if method == "GET" else body)
        _, _, resource, *rest = address.path.split("/")
        routes = {
            "customers": self._customers,
            "invoices": self._invoices,
            "invoiceitems": self._invoice_items,
        }
        done = routes[resource](method, rest, values) if resource in routes else None
        if done is None:
            raise Refusal(
                404, "invalid_request_error", f"Unrecognized request URL ({method}: {address.path})"
            )
        return done

    def _customers(self, method: str, rest: list[str], values: Object) -> Object | None:
        match method, rest:
            case "POST", []:
                return self._made(
                    "cus",
                    self.customers,
                    {"object": "customer", "invoice_settings": {"default_payment_method": None}, **values},
                )
            case "POST", [id_]:
                self._get(self.customers, id_).update(values)
                return self.customers[id_]
        return None

    def _invoices(self, method: str, rest: list[str], values: Object) -> Object | None:
        match method, rest:
            case "POST", []:
                self._get(self.customers, values["customer"])
                new = {"object": "invoice", "status": "draft", "attempted": False}
                return self._made("in", self.invoices, {**new, **values})
            case "GET", []:
                mine = [each for each in self.invoices.values() if each["customer"] == values["customer"]]
                return self._page(mine[::-1], values, "/v1/invoices")
            case "GET", [id_]:
                return self._get(self.invoices, id_)
            case "POST", [id_]:
                self._in_state(id_, "draft").update(values)
                return self.invoices[id_]
            case "DELETE", [id_]:
                self._in_state(id_, "draft")
                del self.invoices[id_]
                return {"id": id_, "object": "invoice", "deleted": True}
            case "POST", [id_, "finalize"]:
                self._in_state(id_, "draft")["status"] = "open" if self.amount(id_) > 0 else "paid"
                return self.invoices[id_]
            case "POST", [id_, "void"]:
                self._in_state(id_, "open", "uncollectible")["status"] = "void"
                return self.invoices[id_]
        return None

    def _invoice_items(self, method: str, rest: list[str], values: Object) -> Object | None:
        match method, rest:
            case "POST", []:
                self._in_state(values["invoice"], "draft")
                values["amount"] = int(values["amount"])
                return self._made("ii", self.items, {"object": "invoiceitem", **values})
            case "GET", []:
                on_it = [each for each in self.items.values() if each["invoice"] == values["invoice"]]
                return self._page(on_it, values, "/v1/invoiceitems")
        return None

    def _made(self, prefix: str, among: dict[str, Object], values: Object) -> Object:
        made = {"id": f"{prefix}_{uuid4().hex}", "livemode": False, **values}
        among[made["id"]] = made
        return made

    def _get(self, among: dict[str, Object], id_: str) -> Object:
        if id_ not in among:
            raise Refusal(404, "invalid_request_error", f"No such object: '{id_}'")
        return among[id_]

    def _in_state(self, id_: str, *states: str) -> Object:
        invoice = self._get(self.invoices, id_)
        if invoice["status"] not in states:
            raise Refusal(400, "invalid_request_error", f"This invoice is {invoice['status']}.")
        return invoice

    def _page(self, everything: list[Object], values: Object, url: str) -> Object:
        begin = 0
        if after := values.get("starting_after"):
            begin = 1 + [each["id"] for each in everything].index(after)
        limit = min(int(values.get("limit", 10)), 2)  # small, so that pages are turned
        rest = everything[begin:]
        return {"object": "list", "url": url, "data": rest[:limit], "has_more": len(rest) > limit}


def parsed(form: str) -> Object:
    """`a[b]=c` is a's b."""
    values: Object = {}
    for name, value in parse_qsl(form, keep_blank_values=True):
        first, *rest = [name.split("[")[0], *NESTED.findall(name)]
        at = values
        for inner in rest:
            at, first = at.setdefault(first, {}), inner
        at[first] = value
    return values


def event(type_: str, about: Object, *, id_: str) -> str:
    """An event as Stripe words it, about an object as it was at some time."""
    return json.dumps(
        {"id": id_, "object": "event", "type": type_, "created": int(time.time()), "data": {"object": about}}
    )


def signature(body: str, secret: str, *, age_s: int = 0) -> str:
    at = int(time.time()) - age_s
    code = hmac.new(secret.encode(), f"{at}.{body}".encode(), hashlib.sha256).hexdigest()
    return f"t={at},v1={code}"


@contextmanager
def stand_in() -> Iterator[Stripe]:
    """One that listens on a free port of this machine."""
    stripe = Stripe()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            call = f"{self.command} {urlsplit(self.path).path}"
            with stripe._lock:
                stripe.calls.append(call)
                number = len(stripe.calls)
            time.sleep(stripe.delay_s)
            fault = stripe.fault(number, call)
            if fault == "lost":
                self.close_connection = True
                return
            try:
                status, answer = stripe.answer(self.command, self.path, body, self.headers)
            except Refusal as refusal:
                status, answer = refusal.status, refusal.body
            if fault == "unheard":
                self.close_connection = True
                return
            if fault == "500":
                stripe.fail_kept(self.headers.get("Idempotency-Key"))
                status, answer = 500, {"error": {"type": "api_error", "message": "Something went wrong."}}
            data = json.dumps(answer).encode()
            with suppress(OSError):  # whoever asked is dead
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815  the library's names

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # whoever asked is dead
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    stripe.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield stripe
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
