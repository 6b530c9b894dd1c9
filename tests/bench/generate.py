"""Tokens per second of our sampling against the library's own `generate`.

Same model, prompts, sampling settings and batch size. The library pads every batch to its
longest prompt, repeats the prompt for each sample and runs until its last row has finished.

    python tests/bench/generate.py [--model smollm2-135m-instruct] [--prompts 16] [--k 8] ...
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from advdistill_core import models
from advdistill_core.models.chat import encode, render
from advdistill_core.teachers import response_seed
from advdistill_core.teachers.local import sample


def questions(count: int) -> list[str]:
    return [
        f"State the final answer to the following arithmetic problem: {7 * i % 90} + {i % 10} ="
        for i in range(count)
    ]


def ours(model: Any, tokenizer: Any, prompts: Sequence[str], settings: argparse.Namespace) -> int:
    seeds = [[response_seed(0, prompt, s) for s in range(settings.k)] for prompt in prompts]
    responses = sample(
        model,
        tokenizer,
        prompts,
        seeds=seeds,
        k=settings.k,
        temperature=settings.temperature,
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.batch_size,
    )
    return sum(response.num_tokens for response in responses)


def library(model: Any, tokenizer: Any, prompts: Sequence[str], settings: argparse.Namespace) -> int:
    """`generate` on batches of as many rows, sorted by length."""
    torch.manual_seed(0)
    end = tokenizer.eos_token_id
    tokens = 0
    for batch in _batches(sorted(encode(tokenizer, prompts), key=len), settings):
        width = max(map(len, batch))
        ids = torch.tensor([[end] * (width - len(row)) + row for row in batch])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch])
        made = model.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            temperature=settings.temperature,
            top_k=0,
            num_return_sequences=settings.k,
            max_new_tokens=settings.max_new_tokens,
            pad_token_id=end,
        )[:, width:]
        ended = (made == end).cumsum(-1) - (made == end).long()
        tokens += int((ended == 0).sum())
    return tokens


def _batches(rows: list[list[int]], settings: argparse.Namespace) -> Iterator[list[list[int]]]:
    size = max(1, settings.batch_size // settings.k)
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--rounds", type=int, default=2)
    settings = parser.parse_args()
    model, tokenizer = (
        models.load_model(settings.model, settings.dtype),
        models.load_tokenizer(settings.model),
    )
    prompts = [render(tokenizer, [{"role": "user", "content": q}]) for q in questions(settings.prompts)]
    for _ in range(settings.rounds):  # interleaved, so that both meet the same machine
        for name, run in (("ours", ours), ("library", library)):
            started, cpu_started = time.perf_counter(), time.process_time()
            tokens = run(model, tokenizer, prompts, settings)
            seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
            result = {"which": name, "tokens": tokens, "seconds": seconds, "cpu_s": cpu_s}
            print(
                json.dumps({**result, "tokens_per_s": tokens / seconds, "tokens_per_cpu_s": tokens / cpu_s})
            )


if __name__ == "__main__":
    main()
