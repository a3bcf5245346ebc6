"""An OpenAI-compatible server on loopback: scripted answers and faults, one real tiny model."""

import gzip
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mingmoe_eval.engine.served_client import Patience

# A test waits for nothing that a user would wait for.
HASTE = Patience(
    concurrency=4, first_wait=0.01, longest_wait=0.02, seconds_an_attempt=5, seconds_a_request=20
)

Answer = Callable[[str, dict[str, Any]], Any]
Fault = Callable[[int, str, dict[str, Any]], str | None]
"""(Which attempt at this very request, path, payload) -> the fault's name, or None."""


@dataclass
class Seen:
    """What a server was asked."""

    paths: list[str] = field(default_factory=list)
    payloads: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    attempts: Counter[str] = field(default_factory=Counter)
    at_once: int = 0
    most_at_once: int = 0


@contextmanager
def serving(
    answer: Answer,
    fault: Fault = lambda attempt, path, payload: None,
    *,
    models: tuple[str, ...] = ("tiny",),
    key: str | None = None,
) -> Iterator[tuple[str, Seen]]:
    """A server while the block lasts: its `--model` address and what it saw."""
    seen, lock = Seen(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Silence."""

        def do_GET(self) -> None:
            self._answer({"data": [{"id": name} for name in models]})

        def do_POST(self) -> None:
            payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            path = self.path.removeprefix("/v1")
            with lock:
                seen.paths.append(path)
                seen.payloads.append(payload)
                seen.headers.append(dict(self.headers))
                seen.times.append(time.monotonic())
                same = json.dumps([path, payload])
                seen.attempts[same] += 1
                attempt = seen.attempts[same]
                seen.at_once += 1
                seen.most_at_once = max(seen.most_at_once, seen.at_once)
            try:
                self._act(fault(attempt, path, payload), path, payload)
            finally:
                with lock:
                    seen.at_once -= 1

        def _act(self, fault: str | None, path: str, payload: dict[str, Any]) -> None:
            word, _, detail = (fault or "").partition(":")
            if word == "status":
                status, _, retry_after = detail.partition(":")
                headers = {"Retry-After": retry_after} if retry_after else {}
                self._answer({"error": {"message": "trouble"}}, int(status), headers)
            elif word == "refusal":
                status, _, said = detail.partition(":")
                self._answer({"error": {"message": said}}, int(status))
            elif word == "cut":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b'{"choices": [')
                self.close_connection = True
            elif word == "drip":
                self._drip()
            elif word == "body":
                self._send(detail.encode(), 200, {})
            elif word == "charset":
                charset, _, status = detail.partition(":")
                body = json.dumps(answer(path, payload)).encode()
                self._send(body, int(status or 200), {}, f"application/json; charset={charset}")
            elif word == "bomb":
                body = gzip.compress(bytes(int(detail)), 1)
                self._send(body, 200, {"Content-Encoding": "gzip"})
            else:
                self._answer(answer(path, payload))

        def _drip(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.close_connection = True
            for _ in range(200):
                try:
                    self.wfile.write(b" ")
                except OSError:
                    return
                time.sleep(0.05)

        def _answer(
            self, reply: Any, status: int = 200, headers: dict[str, str] | None = None
        ) -> None:
            if key is not None and self.headers.get("Authorization") != key:
                given = self.headers.get("Authorization")
                reply, status = {"error": {"message": f"wrong key {given}"}}, 401
            self._send(json.dumps(reply).encode(), status, headers or {})

        def _send(
            self,
            body: bytes,
            status: int,
            headers: dict[str, str],
            content_type: str = "application/json",
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A client that hangs up is part of the game."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"openai:http://127.0.0.1:{server.server_port}/v1#{models[0]}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def text(content: Any, *, chat: bool, finish: str = "stop", **more: Any) -> dict[str, Any]:
    """A generated answer."""
    place = {"message": {"role": "assistant", "content": content}} if chat else {"text": content}
    return {
        "choices": [{"index": 0, **place, "finish_reason": finish, **more}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 3},
    }


def listed(tops: dict[str, float], *, chat: bool) -> dict[str, Any]:
    """One generated token with the likeliest ones."""
    first = next(iter(tops))
    if not chat:
        logprobs: dict[str, Any] = {"tokens": [first], "top_logprobs": [tops]}
    else:
        rows = [{"token": token, "logprob": value} for token, value in tops.items()]
        logprobs = {"content": [{"token": first, "top_logprobs": rows}]}
    return text(first, chat=chat, finish="length", logprobs=logprobs)


class TinyServer:
    """Answers `/completions` and `/chat/completions` as vLLM does, from a model in memory."""

    def __init__(self, model: Any, tokenizer: Any, *, echo: bool = True) -> None:
        self.model, self.tokenizer, self.echo = model, tokenizer, echo
        self._lock = threading.Lock()

    def __call__(self, path: str, payload: dict[str, Any]) -> dict[str, Any]:
        chat = path == "/chat/completions"
        prompt = payload.get("prompt")
        if chat:
            prompt = self.tokenizer.apply_chat_template(
                payload["messages"], tokenize=False, add_generation_prompt=True
            )
        with self._lock:
            return self._reply(self.tokenizer.encode(prompt), payload, chat=chat)

    def _reply(self, ids: list[int], payload: dict[str, Any], *, chat: bool) -> dict[str, Any]:
        import torch

        prompt_tokens = len(ids)
        rows: list[Any] = []
        for _ in range(payload["max_tokens"]):
            logits = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
            rows = [None, *logits.unbind()]
            ids = [*ids, int(logits[-1].argmax())]
            if ids[-1] == self.tokenizer.eos_token_id:
                break
        new = ids[prompt_tokens:]
        reply = text(self.tokenizer.decode(new, skip_special_tokens=True), chat=chat)
        reply["usage"] = {"prompt_tokens": prompt_tokens, "completion_tokens": len(new)}
        if most := payload.get("top_logprobs") or payload.get("logprobs"):
            begin = 0 if payload.get("echo") and self.echo else prompt_tokens
            logprobs = self._logprobs(ids, rows, begin, int(most), chat=chat)
            reply["choices"][0]["logprobs"] = logprobs
        return reply

    def _logprobs(
        self, ids: list[int], rows: list[Any], begin: int, most: int, *, chat: bool
    ) -> dict[str, Any]:
        tokens = [self.tokenizer.decode([i]) for i in ids[begin:]]
        pairs = list(zip(ids, rows, strict=False))[begin:]
        values = [None if row is None else float(row[i]) for i, row in pairs]
        tops = [
            None
            if row is None
            else {self.tokenizer.decode([int(i)]): float(row[i]) for i in row.topk(most).indices}
            for _, row in pairs
        ]
        if not chat:
            return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops}
        first = [{"token": t, "logprob": v} for t, v in tops[0].items()]
        return {"content": [{"token": tokens[0], "logprob": values[0], "top_logprobs": first}]}
