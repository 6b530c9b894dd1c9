"""Sampling from a model in this process: one batch that is refilled as rows finish."""

import inspect
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from advdistill_core.errors import InputError
from advdistill_core.models.chat import encode, end_token_ids, render
from advdistill_core.teachers import kv
from advdistill_core.teachers.attention import grouped_attention
from advdistill_core.teachers.choose import choose
from advdistill_core.teachers.protocol import OnTokens, Request, Response, Sampling

_IDLE_FRAC = 0.25  # share of the batch that may be finished before rows are exchanged
_PREFILL_TOKENS = 16384  # prompt tokens computed at once, padding included
_LOOKAHEAD = 4  # batches of waiting rows that are sorted by length


def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int] | Sequence[Sequence[int]],
    k: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    max_new_tokens: int = 256,
    batch_size: int = 64,
    on_progress: OnTokens | None = None,
) -> Iterator[Response]:
    """Sample k responses to each rendered prompt, in the order in which they finish.

    A response depends on the model, its prompt, its own seed and the sampling parameters;
    the batch that it shares touches it only through rounding of the arithmetic.

    Args:
        model: a causal language model (`models.load_model`).
        prompts: rendered prompts (`models.chat.render`).
        seeds: k seeds per prompt (see `response_seed`), or one per prompt if k is 1.
        temperature: 0 is greedy (the seeds then play no role).
        batch_size: most rows computed at once.
        on_progress: told after every step how many tokens have been generated.
    """
    rows = [tuple(s) if isinstance(s, Sequence) else (s,) for s in seeds]
    if len(rows) != len(prompts) or any(len(row) != k for row in rows):
        raise ValueError(f"seeds: got {len(rows)} rows, expected {len(prompts)} of k = {k} seeds each.")
    requests = [
        Request(i, prompt, tuple(enumerate(row)))
        for i, (prompt, row) in enumerate(zip(prompts, rows, strict=True))
    ]
    sampling = Sampling(temperature, top_p, top_k, max_new_tokens)
    return Engine(model, tokenizer, batch_size).generate(requests, sampling, on_progress)


@dataclass
class _Row:
    """A sample that is being written."""

    index: int
    sample_id: int
    limit: int
    draw: Callable[[], float]
    prompt_tokens: int = 0
    tokens: list[int] = field(default_factory=list)
    done: bool = False


@dataclass
class _Group:
    """Samples of one prompt that enter the batch together."""

    prompt: list[int]
    rows: list[_Row]


@dataclass
class _Batch:
    """Rows and, for each, what the model needs to go on.

    `mask` (B, T) tells a row's own columns from padding; `positions` (B,) is the position
    of the next token; `logits` (B, V) are those of the next token.
    """

    rows: list[_Row]
    cache: Any
    mask: torch.Tensor
    positions: torch.Tensor
    logits: torch.Tensor

    @property
    def num_live(self) -> int:
        return sum(not row.done for row in self.rows)


class Engine:
    """Continuous batching on one model.

    Prompts are taken some batches at a time, the longest of them first. The prompt of a group
    is computed once and its keys and values are repeated for the k samples; finished rows make
    place for waiting ones.
    """

    def __init__(self, model: Any, tokenizer: Any, batch_size: int) -> None:
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        if not kv.supports(model):
            raise InputError(
                "model",
                type(model).__name__,
                "a model that keeps only keys and values",
                "Serve it with another backend.",
            )
        self.ends = end_token_ids(model, tokenizer)
        accepts = inspect.signature(model.forward).parameters
        self.last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepts else {}

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, on_tokens: OnTokens | None = None
    ) -> Iterator[Response]:
        """See `protocol.Teacher`."""
        incoming = iter(requests)
        waiting: deque[_Group] = deque()
        batch: _Batch | None = None
        num_tokens = 0
        with grouped_attention(self.model):
            while True:
                yield from self._refill(waiting, incoming, sampling.max_new_tokens)
                if not waiting and not (batch and batch.num_live):
                    return
                with torch.inference_mode():
                    batch = self._exchange(batch, waiting)
                    num_tokens += self._draw(batch, sampling)
                if on_tokens:
                    on_tokens(num_tokens)
                for row in batch.rows:
                    if not row.done and (row.tokens[-1] in self.ends or len(row.tokens) >= row.limit):
                        row.done = True
                        yield self._response(row)
                if batch.num_live:
                    with torch.inference_mode():
                        self._step(batch)

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The conversation in the model's own chat template."""
        return render(self.tokenizer, messages)

    def close(self) -> None:
        """Let go of the model."""
        self.model = None

    def _refill(self, waiting: deque[_Group], incoming: Iterator[Request], max_new: int) -> list[Response]:
        """Take requests until some batches of rows wait; returns what was refused."""
        num_rows = sum(len(group.rows) for group in waiting)
        if num_rows >= self.batch_size:
            return []
        taken: list[Request] = []
        while num_rows < _LOOKAHEAD * self.batch_size and (request := next(incoming, None)):
            taken.append(request)
            num_rows += len(request.samples)
        groups, refused = self._groups(taken, max_new)
        # Behind those that wait: a short prompt would else be passed over for ever.
        waiting.extend(sorted(groups, key=lambda group: -len(group.prompt)))
        return refused

    def _groups(self, requests: Sequence[Request], max_new: int) -> tuple[list[_Group], list[Response]]:
        """Groups of at most a batch of rows; and refusals of prompts that leave no room to answer."""
        limit = getattr(self.model.config, "max_position_embeddings", None) or 1 << 30
        groups, refused = [], []
        ids = encode(self.tokenizer, [request.prompt for request in requests]) if requests else []
        for request, prompt in zip(requests, ids, strict=True):
            room = min(max_new, limit - len(prompt))
            if room <= 0 or not prompt:
                refused += [Response(request.index, s, "", "error", 0) for s, _ in request.samples]
                continue
            rows = [
                _Row(request.index, s, room, np.random.default_rng(seed).random, 0 if i else len(prompt))
                for i, (s, seed) in enumerate(request.samples)
            ]
            for start in range(0, len(rows), self.batch_size):
                groups.append(_Group(prompt, rows[start : start + self.batch_size]))
        return groups, refused

    def _exchange(self, batch: _Batch | None, waiting: deque[_Group]) -> _Batch:
        """Drop finished rows and let waiting groups in, once enough rows have finished.

        It copies the cache, so it does not pay for every row that finishes.
        """
        live = batch.num_live if batch else 0
        room = self.batch_size - live
        admitted: list[_Group] = []
        if waiting and (live == 0 or room >= max(len(waiting[0].rows), _IDLE_FRAC * self.batch_size)):
            while waiting and self._fits(waiting[0], admitted, room):
                admitted.append(waiting.popleft())
        if batch and not admitted and len(batch.rows) - live < max(1, _IDLE_FRAC * len(batch.rows)):
            return batch
        return self._rebuilt(batch if live else None, admitted)

    @staticmethod
    def _fits(group: _Group, admitted: list[_Group], room: int) -> bool:
        rows = sum(len(g.rows) for g in admitted) + len(group.rows)
        longest = max(len(g.prompt) for g in (*admitted, group))
        return rows <= room and (not admitted or longest * (len(admitted) + 1) <= _PREFILL_TOKENS)

    def _rebuilt(self, batch: _Batch | None, admitted: list[_Group]) -> _Batch:
        """A batch of the live rows of `batch` and the rows of `admitted`."""
        device = self.model.device
        keep = [i for i, row in enumerate(batch.rows) if not row.done] if batch else []
        kept = torch.tensor(keep, dtype=torch.long, device=device)
        old_mask = batch.mask[kept] if batch else None
        left = int(old_mask.any(0).int().argmax()) if old_mask is not None else 0
        new = self._prefill([group.prompt for group in admitted]) if admitted else None
        repeats = torch.tensor([len(group.rows) for group in admitted], dtype=torch.long, device=device)
        masks, positions, logits = [], [], []
        if batch and old_mask is not None:
            masks.append(old_mask[:, left:])
            positions.append(batch.positions[kept])
            logits.append(batch.logits[kept])
        if new:
            masks.append(new.mask.repeat_interleave(repeats, 0))
            positions.append(new.positions.repeat_interleave(repeats))
            logits.append(new.logits.repeat_interleave(repeats, 0))
        length = max(mask.shape[1] for mask in masks)
        return _Batch(
            rows=[batch.rows[i] for i in keep if batch] + [row for group in admitted for row in group.rows],
            cache=kv.join(batch.cache if batch else None, kept, left, new.cache if new else None, repeats),
            mask=torch.cat([torch.nn.functional.pad(m, (length - m.shape[1], 0)) for m in masks]),
            positions=torch.cat(positions),
            logits=torch.cat(logits),
        )

    def _prefill(self, prompts: list[list[int]]) -> _Batch:
        """Compute prompts, padded on the left, and the logits after each."""
        length = max(map(len, prompts))
        ids = torch.tensor([[0] * (length - len(p)) + p for p in prompts], device=self.model.device)
        lengths = torch.tensor([len(p) for p in prompts], device=self.model.device)
        mask = torch.arange(length, device=self.model.device)[None] >= length - lengths[:, None]
        cache = kv.new_cache(self.model)
        logits = self._forward(ids, mask, (mask.cumsum(-1) - 1).clamp(min=0), cache)
        return _Batch([], cache, mask, lengths, logits)

    def _step(self, batch: _Batch) -> None:
        """Feed every row's last token; finished rows idle along, their output is not used."""
        last = torch.tensor([[row.tokens[-1]] for row in batch.rows], device=self.model.device)
        batch.mask = torch.nn.functional.pad(batch.mask, (0, 1), value=True)
        batch.logits = self._forward(last, batch.mask, batch.positions[:, None], batch.cache)
        live = torch.tensor([not row.done for row in batch.rows], device=self.model.device)
        batch.positions = batch.positions + live  # within the model's range

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any) -> Any:
        output = self.model(
            input_ids=ids,
            attention_mask=mask.long(),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **self.last_only,
        )
        return output.logits[:, -1]

    def _draw(self, batch: _Batch, sampling: Sampling) -> int:
        """Append a token to every live row; returns how many."""
        uniforms = torch.tensor([0.0 if row.done else row.draw() for row in batch.rows], dtype=torch.float64)
        chosen = choose(batch.logits, uniforms, sampling.temperature, sampling.top_p, sampling.top_k)
        live = 0
        for row, token in zip(batch.rows, chosen.tolist(), strict=True):
            if not row.done:
                row.tokens.append(token)
                live += 1
        return live

    def _response(self, row: _Row) -> Response:
        stopped = row.tokens[-1] in self.ends
        text = self.tokenizer.decode(row.tokens, skip_special_tokens=True)
        return Response(
            row.index,
            row.sample_id,
            text,
            "stop" if stopped else "length",
            len(row.tokens),
            prompt_tokens=row.prompt_tokens,
        )
