"""The stage `likelihood`: how likely the student finds the teacher's right and wrong responses."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from advdistill_core import models
from advdistill_core.config import DistillConfig
from advdistill_core.errors import StageError
from advdistill_core.evaluation.behaviour import likelihood_gap
from advdistill_core.evaluation.stage import TRAINED
from advdistill_core.progress import Event, Progress
from advdistill_core.rewards.types import UNDECIDED
from advdistill_core.store import Artifact, ArtifactWriter

_COLUMNS = ["prompt_id", "sample_id", "text", "finish_reason"]

Row = dict[str, Any]


def identity(config: DistillConfig, params: Mapping[str, Any]) -> dict[str, Any]:
    """Depends on the model, on how many responses are looked at, and on the number type."""
    chosen = config.evaluation
    found: dict[str, Any] = {"likelihoods": chosen.likelihoods, "dtype": chosen.dtype}
    if params["model"] not in TRAINED:
        found["model_identity"] = models.identity(config.student.model)
        found["keep_layers"] = config.student.keep_layers
    return found


def run(
    config: DistillConfig,
    inputs: Mapping[str, Artifact],
    params: Mapping[str, Any],
    out: ArtifactWriter,
    progress: Progress,
) -> None:
    """Note the mean log-probability per token (nats) of right and of wrong responses.

    Args:
        params: `model` is `student_before`, or `student_after` with the input `student`.

    Raises:
        StageError: a trained student is to be measured and there is none.
    """
    rows = chosen_rows(inputs, config.evaluation.likelihoods)
    model, tokenizer = _load(config, inputs, params["model"])
    asked = {
        row["prompt_id"]: row["messages"]
        for part in inputs["prompts"].tables("train")
        for row in part.select(["prompt_id", "messages"]).to_pylist()
    }
    means: list[float] = []
    for batch in _batches(rows, config.evaluation.batch_size):
        means += mean_logprobs(model, tokenizer, [(asked[row["prompt_id"]], row) for row in batch])
        progress(Event(stage="likelihood", done=len(means), total=len(rows), unit="responses"))
    gap = likelihood_gap(means, [row["correct"] for row in rows])
    out.note(metrics={**gap, "num_responses": len(rows)})


def chosen_rows(inputs: Mapping[str, Artifact], count: int) -> list[Row]:
    """At most `count` responses that ended by themselves, from prompts with right and wrong ones."""
    verdicts = {
        (row["prompt_id"], row["sample_id"]): row["verdict"]
        for part in inputs["rewards"].tables()
        for row in part.select(["prompt_id", "sample_id", "verdict"]).to_pylist()
    }
    kinds: dict[str, set[bool]] = {}
    for (prompt_id, _), verdict in verdicts.items():
        if verdict not in UNDECIDED:
            kinds.setdefault(prompt_id, set()).add(verdict == "correct")
    rows = [
        row | {"correct": verdicts[row["prompt_id"], row["sample_id"]] == "correct"}
        for part in inputs["responses"].tables()
        for row in part.select(_COLUMNS).to_pylist()
        if len(kinds.get(row["prompt_id"], ())) == 2
        and row["finish_reason"] == "stop"
        and row["text"]
        and verdicts[row["prompt_id"], row["sample_id"]] not in UNDECIDED
    ]
    return rows[:: max(1, -(-len(rows) // count))] if count else []


def mean_logprobs(model: Any, tokenizer: Any, pairs: Sequence[tuple[Any, Row]]) -> list[float]:
    """Mean log-probability per token (nats) of each response and its end token, given its prompt."""
    import torch

    from advdistill_core.models.chat import encode, render

    prompts = encode(tokenizer, [render(tokenizer, messages) for messages, _ in pairs])
    texts = tokenizer([row["text"] for _, row in pairs], add_special_tokens=False)["input_ids"]
    completions = [[*ids, tokenizer.eos_token_id] for ids in texts]
    width = max(len(p) + len(c) for p, c in zip(prompts, completions, strict=True))
    ids = torch.zeros((len(pairs), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        length = len(prompt) + len(completion)
        ids[i, :length] = torch.tensor(prompt + completion)
        mask[i, :length] = 1
    with torch.inference_mode():
        logits = (
            model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits.float().cpu()
        )
    found = []
    for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        first = len(prompt) - 1  # the logits at t predict the token at t + 1
        predicted = logits[i, first : first + len(completion)].log_softmax(-1)
        labels = torch.tensor(completion)[:, None]
        found.append(float(predicted.gather(1, labels).mean()))
    return found


def _load(config: DistillConfig, inputs: Mapping[str, Artifact], model: str) -> tuple[Any, Any]:
    trust, chosen = config.student.trust_remote_code, config.evaluation
    name = config.student.model
    if model in TRAINED:
        if "student" not in inputs:
            raise StageError(f"stage likelihood: got no {model}, expected one. Train it first.")
        name = str(inputs["student"].local_path())
    loaded = models.load_model(name, chosen.dtype, chosen.device, trust)
    if model not in TRAINED and config.student.keep_layers:
        from advdistill_core.models.layers import keep_layers

        keep_layers(loaded, config.student.keep_layers)
    return loaded, models.load_tokenizer(name, trust)


def _batches(rows: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))
