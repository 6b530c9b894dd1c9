"""Log-probabilities of right and wrong responses against a row-by-row computation."""

from pathlib import Path
from typing import Any

import pytest
from report_fixture import make_run

from advdistill_core import models
from advdistill_core.config import DistillConfig
from advdistill_core.evaluation.likelihood import chosen_rows, mean_logprobs
from advdistill_core.models.chat import encode, render
from advdistill_core.stages import LIKELIHOOD, run_stage
from advdistill_core.store import Store

TINY = "tiny-random-llama"
CONFIG = DistillConfig.model_validate(
    {
        "student": {"model": TINY, "device": "cpu"},
        "evaluation": {"likelihoods": 100, "batch_size": 3, "device": "cpu"},
    }
)


def alone(model: Any, tokenizer: Any, messages: Any, text: str) -> float:
    """One response without padding, a token at a time."""
    import torch

    prompt = encode(tokenizer, [render(tokenizer, messages)])[0]
    ids, total, count = list(prompt), 0.0, 0
    for token in [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        total += float(logits.log_softmax(-1)[token])
        ids.append(token)
        count += 1
    return total / count


def test_batches_of_unequal_lengths_equal_each_response_alone() -> None:
    model, tokenizer = models.load_model(TINY, "float32", "cpu"), models.load_tokenizer(TINY)
    asked = [[{"role": "user", "content": text}] for text in ("1+1", "What is 22 + 3, please?", "7")]
    texts = ["2", "It is 25.", "the number 7 itself"]
    found = mean_logprobs(model, tokenizer, [(m, {"text": t}) for m, t in zip(asked, texts, strict=True)])
    expected = [alone(model, tokenizer, m, t) for m, t in zip(asked, texts, strict=True)]
    assert found == pytest.approx(expected, abs=1e-4)


def test_only_mixed_prompts_are_looked_at_and_right_and_wrong_apart(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    refs = make_run(store, verdicts=["ccww", "cccc", "wwww", "cwtW"])
    inputs = {name: store.open(ref) for name, ref in refs.items()}
    rows = chosen_rows(inputs, 100)
    assert [(r["prompt_id"][-1], r["sample_id"], r["correct"]) for r in rows] == [
        ("0", 0, True), ("0", 1, True), ("0", 2, False), ("0", 3, False), ("3", 0, True), ("3", 1, False),
    ]  # fmt: skip
    assert len(chosen_rows(inputs, 3)) == 3
    asked = {name: refs[name] for name in ("prompts", "responses", "rewards")}
    metrics = store.open(
        run_stage(LIKELIHOOD, CONFIG, asked, store, {"model": "student_before"})
    ).manifest.metrics
    assert metrics["num_responses"] == 6
    assert metrics["logprob_gap"] == pytest.approx(metrics["logprob_correct"] - metrics["logprob_wrong"])
    assert metrics["logprob_correct"] < 0
