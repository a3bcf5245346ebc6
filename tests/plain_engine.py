"""A stand-in for vLLM's engine: same questions, same replies, computed by a transformers model.

One token a step for every request; a prefix cache of whole blocks that, as vLLM's, has no
log-probabilities of what it holds.
"""

import itertools
from typing import Any

import torch

from mingmoe_eval.vllm.door import Reply

BLOCK = 8


class PlainEngine:
    def __init__(self, model: Any) -> None:
        self.model, self.asked, self.cached = model, [], set()
        self.under_way: dict[str, dict] = {}
        self.numbers = itertools.count()
        self.architecture = type(model).__name__
        self.vocabulary = model.config.vocab_size
        self.closed, self.block = False, BLOCK

    def facts(self) -> dict[str, Any]:
        return {"engine": "vllm", "engine_version": "0", "dtype": "float32"}

    def ask(
        self,
        tokens,
        *,
        new_tokens,
        end_ids=(),
        of_last=(),
        values=False,
        of_prompt=False,
        use_cache=True,
        **sampling,
    ):
        key = f"r{next(self.numbers)}"
        blocks = [tuple(tokens[:end]) for end in range(BLOCK, len(tokens), BLOCK)]
        hits = 0
        if use_cache:
            hits = sum(1 for _ in itertools.takewhile(self.cached.__contains__, blocks))
        self.cached |= set(blocks)
        request = {
            "tokens": list(tokens),
            "prompt": len(tokens),
            "new": new_tokens,
            "end": set(end_ids),
            "of_last": of_last,
            "values": values,
            "of_prompt": of_prompt,
            "cached": hits * BLOCK,
            **sampling,
        }
        self.under_way[key] = request
        self.asked.append(request)
        return key

    @torch.no_grad()
    def step(self):
        for key, request in list(self.under_way.items()):
            logits = self.model(torch.tensor([request["tokens"]])).logits[0].float()
            values = logits.log_softmax(-1)
            token = int(logits[-1].argmax())
            first = len(request["tokens"]) == request["prompt"]
            of_prompt = {}
            if request["of_prompt"] and first:
                for place in range(1, request["prompt"]):
                    id_ = request["tokens"][place]
                    row = values[place - 1]
                    told = (float(row[id_]), 1 + int((row > row[id_]).sum()))
                    lost = place <= request["cached"]
                    of_prompt[place] = {id_: (float("nan"), 99) if lost else told}
            ids = {token, *request["of_last"]}
            request["tokens"].append(token)
            length = len(request["tokens"]) - request["prompt"]
            finished = token in request["end"] or length >= request["new"]
            if finished:
                del self.under_way[key]
            yield Reply(
                key=key,
                new_ids=[token],
                values=[float(values[-1][token])] if request["values"] else [],
                of_last={i: float(values[-1][i]) for i in ids} if first else {},
                of_prompt=of_prompt,
                cached_tokens=request["cached"],
                finished=finished,
            )

    def stop(self, keys) -> None:
        for key in keys:
            self.under_way.pop(key, None)

    def merged_change(self) -> float:
        return 0.0

    def close(self) -> None:
        self.closed = True
