"""Requests to an OpenAI-compatible endpoint: many at once, tried again with patience.

httpx2, the maintained continuation of httpx, does the talking; it runs in a thread with an event
loop of its own, so that callers may be anywhere, in a notebook too. Answers come as they are ready.
"""

import email.utils
import json
import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mingmoe_eval.engine.served_address import KEY_VARIABLES, ServedAddress, served_address
from mingmoe_eval.engine.served_protocol import ErrorReply, MalformedReply, Question
from mingmoe_eval.errors import CheckpointError, UsageError
from mingmoe_eval.extras import how_to_install

if TYPE_CHECKING:
    import httpx2

# Overloaded, starting, or behind a proxy that is: these pass.
_PASSING_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_JSON = {"Content-Type": "application/json"}
_LONGEST_REASON = 300
# Far above any answer with its log-probabilities; a compressed reply can claim gigabytes.
_LARGEST_REPLY = 32 * 2**20
_EFFORT_OF_A_PAUSE = 0.25
LIMIT, _NEWER_LIMIT = "max_tokens", "max_completion_tokens"
"""What the limit of new tokens is called; models of OpenAI's that think take the second alone."""
_ATTEMPTS_OF_ONE = 3
# A proxy's page while its server starts is no JSON and passes; a server's own kind of reply stays.
_ATTEMPTS_OF_NO_JSON = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How hard an endpoint is pressed, and how long it is waited for; times in seconds.

    Before a new attempt a random time is waited, up to a limit that doubles each time ("full
    jitter"), and never less than the server asked for. A server that says when to come back
    (Retry-After and the like) makes all requests wait, and costs a quarter of an attempt.
    """

    concurrency: int = 16
    attempts: int = 7
    first_wait: float = 0.5
    longest_wait: float = 60.0
    seconds_an_attempt: float = 600.0
    seconds_a_request: float = 1200.0
    failures_in_a_row: int = 50
    """So many requests without a single answer in between: the endpoint is given up."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request has no answer; `status` is HTTP's, 0 when there was no reply at all."""

    reason: str
    status: int = 0

    @property
    def tells_nothing(self) -> bool:
        """Whether it says nothing of what was asked: another time there may be an answer.

        500 is not among them: some servers say so to what they cannot do.
        """
        return self.status == 0 or (self.status in _PASSING_STATUS and self.status != 500)


def with_model_name(model: str) -> str:
    """`--model` with the name of the only model that its endpoint serves, where it names none.

    Raises:
        CheckpointError: nothing answers there.
        UsageError: the address cannot be understood, or several models are served.
    """
    address = served_address(model)
    if address.name:
        return model
    return f"{model.rstrip('#')}#{quote(model_name(ServedClient(address)))}"


def model_name(client: "ServedClient", on_note: Callable[[str], None] = lambda text: None) -> str:
    """The name to ask for: the one that was given, else the only one that is served.

    Args:
        client: Who asks the endpoint.
        on_note: Told where the endpoint lists other names than the one that was given.

    Raises:
        CheckpointError: nothing answers there.
        UsageError: there is not one model alone, and none was named.
    """
    names = client.models()
    if isinstance(names, Failure):
        if names.status == 0:
            raise CheckpointError(f"nothing answers at {client.address.public}: {names.reason}")
        names = []  # not every endpoint lists its models
    listed = ", ".join(names[:10]) or "models that it does not list"
    if not client.address.name and len(names) != 1:
        raise UsageError(f"{client.address.public}: add #NAME; it serves {listed}")
    if client.address.name and names and client.address.name not in names:
        on_note(f"{client.address.public} lists no model of that name, but {listed}")
    return client.address.name or names[0]


class _TryAgain(Exception):
    """An attempt that failed in a way that may pass."""

    def __init__(
        self, failure: Failure, asked_to_wait: float | None = None, *, at_most: int | None = None
    ) -> None:
        super().__init__(failure.reason)
        self.failure = failure
        self.asked_to_wait = asked_to_wait
        self.at_most = at_most
        """So many attempts, where the client's patience is too much."""


class _Hopeless(Exception):
    """An attempt that would fail in the same way again."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class ServedClient:
    """One endpoint. `transport` is httpx2's seam: what stands in for the network."""

    def __init__(
        self,
        address: ServedAddress,
        patience: Patience | None = None,
        *,
        transport: "httpx2.AsyncBaseTransport | None" = None,
    ) -> None:
        try:
            import httpx2
        except ModuleNotFoundError as error:
            raise UsageError(f"served models need httpx2: {how_to_install('api')}") from error
        try:
            httpx2.URL(address.base_url)
        except httpx2.InvalidURL as error:
            raise UsageError(f"{address.public} is no address: {error}") from error
        self.address = address
        self.patience = patience or Patience()
        self._transport = transport
        self._random = random.Random()
        self._not_before = 0.0
        self.limit_name = LIMIT
        """What the limit of new tokens is called here, once a refusal has told."""
        self._answered: Question | None = None

    def ask(self, question: Question) -> Any | Failure:
        """The reply to one request, as parsed JSON, or why there is none; soon, not at any cost.

        Raises:
            CheckpointError: the endpoint refuses the credentials.
        """
        [(_, outcome)] = self._outcomes([question], attempts=_ATTEMPTS_OF_ONE)
        if isinstance(outcome, Failure):
            self._refuse_if_unauthorised(outcome)
        elif question.payload:
            self._answered = question
        return outcome

    def models(self) -> list[str] | Failure:
        """The names of the models that the endpoint says it serves."""
        reply = self.ask(Question("/models", {}, _model_names))
        return reply if isinstance(reply, Failure) else _model_names(reply)

    def ask_all(
        self, questions: Sequence[Question]
    ) -> Generator[tuple[int, Any | Failure], None, None]:
        """(place in `questions`, reply or failure), as they come.

        Raises:
            CheckpointError: the endpoint refuses the credentials, or has answered nothing for so
                long that asking on is of no use.
        """
        in_a_row = 0
        for place, outcome in self._outcomes(questions, attempts=self.patience.attempts):
            in_a_row = in_a_row + 1 if isinstance(outcome, Failure) else 0
            if isinstance(outcome, Failure):
                self._refuse_if_unauthorised(outcome)
                # One may be a doc's own, too long for instance; so many are of how we ask.
                if in_a_row >= self.patience.failures_in_a_row:
                    raise CheckpointError(
                        f"{self.address.public} has answered none of the last {in_a_row} requests "
                        f"({outcome.reason}); what it answered before is kept: --resume the run "
                        "when it is back"
                    )
            else:
                self._answered = questions[place]
            yield place, outcome

    def _outcomes(
        self, questions: Sequence[Question], *, attempts: int
    ) -> Iterator[tuple[int, Any | Failure]]:
        from anyio.from_thread import start_blocking_portal

        outcomes: SimpleQueue[tuple[int, Any] | None] = SimpleQueue()
        # Leaving the block early, by Ctrl-C for instance, cancels what is under way.
        with start_blocking_portal() as portal:
            working = portal.start_task_soon(self._ask_all, questions, attempts, outcomes.put)
            working.add_done_callback(lambda _: outcomes.put(None))
            while (outcome := outcomes.get()) is not None:
                yield outcome
            working.result()

    async def _ask_all(
        self,
        questions: Sequence[Question],
        attempts: int,
        done: Callable[[tuple[int, Any]], None],
    ) -> None:
        import anyio

        waiting = iter(enumerate(questions))

        async def work(client: "httpx2.AsyncClient") -> None:
            for place, question in waiting:
                done((place, await self._persist(client, question, attempts)))

        async with self._client() as client, anyio.create_task_group() as group:
            for _ in range(min(self.patience.concurrency, len(questions))):
                group.start_soon(work, client)

    def _client(self) -> "httpx2.AsyncClient":
        import httpx2

        key = self.address.key
        limit = self.patience.concurrency
        return httpx2.AsyncClient(
            transport=self._transport,
            headers={"Authorization": f"Bearer {key}"} if key and not self.address.login else {},
            auth=self.address.login,
            # A redirect would carry credentials and questions to where nobody sent them.
            follow_redirects=False,
            timeout=self.patience.seconds_an_attempt,
            limits=httpx2.Limits(max_connections=limit, max_keepalive_connections=limit),
        )

    async def _persist(
        self, client: "httpx2.AsyncClient", question: Question, most_attempts: int
    ) -> Any | Failure:
        """Ask until there is an answer, a final refusal, or no patience left."""
        import anyio

        give_up = time.monotonic() + self.patience.seconds_a_request
        attempts = effort = 0.0
        while True:
            await anyio.sleep(max(0.0, self._not_before - time.monotonic()))
            try:
                return await self._attempt(client, question)
            except _Hopeless as caught:
                return caught.failure
            except _TryAgain as caught:
                trouble = caught
            attempts += 1
            effort += 1 if trouble.asked_to_wait is None else _EFFORT_OF_A_PAUSE
            wait = self._wait(effort, trouble.asked_to_wait)
            if (
                effort >= min(most_attempts, trouble.at_most or most_attempts)
                or time.monotonic() + wait > give_up
            ):
                reason = f"{trouble.failure.reason} (given up after {attempts:.0f} attempts)"
                return Failure(reason, trouble.failure.status)
            if trouble.asked_to_wait is not None:
                until = time.monotonic() + trouble.asked_to_wait
                self._not_before = max(self._not_before, until)
            await anyio.sleep(wait)

    async def _attempt(self, client: "httpx2.AsyncClient", question: Question) -> Any | Failure:
        import anyio
        import httpx2

        url = self.address.base_url + question.path
        limit_name = self.limit_name
        said = question.payload.items()
        payload = {limit_name if name == LIMIT else name: value for name, value in said}
        try:
            # Over the whole exchange: httpx2's own limits start anew with every byte.
            with anyio.fail_after(self.patience.seconds_an_attempt):
                # Escaped to ASCII: a lone surrogate in a doc must not end the run.
                asked = (
                    client.stream("POST", url, content=json.dumps(payload), headers=_JSON)
                    if payload
                    else client.stream("GET", url)
                )
                async with asked as response:
                    body = await _body(response)
        except TimeoutError:
            limit = self.patience.seconds_an_attempt
            raise _TryAgain(Failure(f"no answer within {limit:g} s")) from None
        except httpx2.HTTPError as error:
            raise _TryAgain(Failure(self._said(f"{type(error).__name__}: {error}"))) from None
        outcome = self._reply(response, body, question)
        if limit_name == LIMIT and LIMIT in payload and _wants_newer_limit(outcome):
            self.limit_name = _NEWER_LIMIT
            return await self._attempt(client, question)
        return outcome

    def _reply(self, response: "httpx2.Response", body: bytes, question: Question) -> Any | Failure:
        status = response.status_code
        if status != 200:
            said = _message(body) or response.reason_phrase
            failure = Failure(self._said(f"HTTP {status}: {said}"), status)
            if status not in _PASSING_STATUS:
                return failure
            raise _TryAgain(failure, asked_to_wait(response.headers))
        try:
            # From bytes: JSON tells its own encoding, and a header may name one that is none.
            reply = self.address.redact_json(json.loads(body))
            question.read(reply)
        except (ValueError, RecursionError):
            no_json = Failure("the reply is no JSON", status)
            raise _TryAgain(no_json, at_most=_ATTEMPTS_OF_NO_JSON) from None
        except ErrorReply as error:
            raise _TryAgain(Failure(self._said(str(error)), status)) from None
        except MalformedReply as error:
            return Failure(self._said(str(error)), status)
        return reply

    def _refuse_if_unauthorised(self, failure: Failure) -> None:
        if failure.status == 403 and self._answered is not None:
            # A firewall or a filter before the server says so of one doc: then what was answered
            # before still is.
            [(_, again)] = self._outcomes([self._answered], attempts=_ATTEMPTS_OF_ONE)
            if not isinstance(again, Failure):
                return
        if failure.status in (401, 403):
            raise CheckpointError(
                f"{self.address.public} refuses the credentials ({failure.reason}); put the key "
                f"into the environment variable {' or '.join(KEY_VARIABLES)}"
            )

    def _wait(self, effort: float, asked: float | None) -> float:
        ceiling = self.patience.first_wait * 2 ** max(effort - 1, 0)
        jitter = self._random.uniform(0, min(ceiling, self.patience.longest_wait))
        return jitter + (asked or 0.0)

    def _said(self, text: str) -> str:
        """What a server or a library says, fit for a log: one line, short, without credentials."""
        line = " ".join(self.address.redact(text).split())
        return line[:_LONGEST_REASON]


def asked_to_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, or None when it does not say.

    `Retry-After` in seconds or as a date, and `retry-after-ms` of OpenAI's own servers.
    """
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        if text.isascii() and text.replace(".", "", 1).isdecimal():
            return float(text) * unit
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


async def _body(response: "httpx2.Response") -> bytes:
    """What came, decompressed; the rest of an endless reply is not waited for."""
    received = bytearray()
    async for piece in response.aiter_bytes():
        received += piece
        if len(received) > _LARGEST_REPLY:
            raise _Hopeless(Failure(f"the reply is larger than {_LARGEST_REPLY // 2**20} MB"))
    return bytes(received)


def _message(body: bytes) -> str:
    """The server's own words, out of whatever it wraps them in."""
    try:
        said: Any = json.loads(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")
    for name in ("error", "message", "detail"):
        if isinstance(said, Mapping) and said.get(name):
            said = said[name]
    return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)


def _wants_newer_limit(outcome: Any | Failure) -> bool:
    refused = isinstance(outcome, Failure) and outcome.status == 400
    return refused and _NEWER_LIMIT in outcome.reason


def _model_names(reply: Any) -> list[str]:
    listed = reply.get("data") if isinstance(reply, Mapping) else None
    if not isinstance(listed, list):
        raise MalformedReply("no list of models")
    return [str(entry["id"]) for entry in listed if isinstance(entry, Mapping) and "id" in entry]
