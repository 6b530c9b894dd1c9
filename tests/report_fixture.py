"""A finished run made up for tests of the report: tables with known figures, no model."""

from typing import Any

import numpy as np
import pyarrow as pa

from advdistill_core.config import DistillConfig
from advdistill_core.stages import PUBLISH, run_stage
from advdistill_core.store import Artifact, ArtifactRef, Store, tables

HOSTILE = (
    "</style></script><script>window.hacked = 1</script><!-- <img src=x onerror='window.hacked=2'> & \u2028"
)
CONFIG = DistillConfig.model_validate(
    {
        "name": "made-up",
        "prompts": {"num_train": 5, "num_heldout": 40},
        "evaluation": {"second_opinions": 0},
    }
)


def question(i: int, split: str) -> str:
    if split == "heldout":
        return (
            f"Mia counts {i} pencils in her bag. She gives {i % 7} of them to Ben. How many are left for Mia?"
        )
    return f"A farmer keeps {i} hens and buys {i % 9} more on Monday. How many hens does the farmer have now?"


def make_run(
    store: Store,
    verdicts: list[str] | None = None,
    num_heldout: int = 40,
    gained: int = 12,
    lost: int = 2,
    texts: dict[tuple[int, int], str] | None = None,
    words: int = 12,
) -> dict[str, ArtifactRef]:
    """Write the artifacts of a run.

    Args:
        verdicts: a string per training prompt with a letter per response: c correct, w wrong,
            u unparsed, t timeout; upper case where cut at the token limit.
        num_heldout, gained, lost: of the held-out questions; 8 more are right both times.
        texts: by (prompt, sample), instead of made-up words.
        words: length of a made-up response.
    """
    verdicts = verdicts if verdicts is not None else ["ccww", "cccc", "wwuW", "cwtw", "tttt"]
    rng = np.random.default_rng(0)
    written = [f"word{i}" for i in rng.integers(0, 500, 20_000)]
    responses, rewards, weights = [], [], []
    for i, letters in enumerate(verdicts):
        for s, letter in enumerate(letters):
            start = (words * (8 * i + s)) % (len(written) - words)
            made_up = " ".join(written[start : start + words]) + f" {i} + {s} = {i + s}"
            text = (texts or {}).get((i, s), made_up)
            row = _response(f"t{i:05d}", s, text, letter)
            responses.append(row)
            rewards.append(_reward(row, letter))
            weights.append(_weight(row, letter, letters))
    heldout = [f"h{i:05d}" for i in range(num_heldout)]
    right_before = set(range(8)) | set(range(8, 8 + lost))
    right_after = set(range(8)) | set(range(8 + lost, 8 + lost + gained))
    refs = {
        "prompts": _commit(
            store, "load", "prompts", _prompts(len(verdicts), num_heldout), {"repeated_questions": 3}
        ),
        "responses": _commit(store, "generate", "responses", {"part": responses}, tokens=len(responses) * 20),
        "rewards": _commit(store, "verify", "rewards", {"part": rewards}),
        "weights": _commit(
            store,
            "weigh",
            "weights",
            {"part": weights},
            {
                "weight_on_correct_frac": 0.9,
                "effective_sample_size": 2.5,
                "dropped_groups": 2,
                "slight_responses": 3,
                "dropped_because": {"all wrong": 1, "without any verdict": 1},
                "by_num_correct": [
                    {
                        "num_correct": 2,
                        "num_gradable": 4,
                        "num_groups": 1,
                        "effective_sample_size": 2.4,
                        "weight_on_correct_frac": 0.9,
                    }
                ],
            },
        ),
        "student": _student(store),
    }
    for name, right in (("before", right_before), ("after", right_after)):
        rows = [
            _score(q, f"student_{name}", "correct" if i in right else "wrong") for i, q in enumerate(heldout)
        ]
        refs[f"scores_{name}"] = _commit(store, "evaluate", "scores", {"part": rows}, key=name[0])
    return refs


def publish(store: Store, config: DistillConfig = CONFIG, **changes: Any) -> Artifact:
    """Make a run and its report."""
    return store.open(run_stage(PUBLISH, config, make_run(store, **changes), store))


def _prompts(num_train: int, num_heldout: int) -> dict[str, list[dict[str, Any]]]:
    return {
        split: [
            {
                "prompt_id": f"{split[0]}{i:05d}",
                "task": "math",
                "messages": [{"role": "user", "content": question(i, split)}],
                "reference_answer": str(i),
                "choices": [],
                "split": split,
                "source": "made up",
            }
            for i in range(count)
        ]
        for split, count in (("heldout", num_heldout), ("train", num_train))
    }


def _response(prompt_id: str, sample_id: int, text: str, letter: str) -> dict[str, Any]:
    return {
        "prompt_id": prompt_id,
        "sample_id": sample_id,
        "text": text,
        "finish_reason": "length" if letter.isupper() else "stop",
        "num_tokens": 10 + 5 * sample_id,
        "teacher": "made-up",
        "seed": 0,
        "request_hash": "0",
    }


def _reward(row: dict[str, Any], letter: str) -> dict[str, Any]:
    verdict = {"c": "correct", "w": "wrong", "u": "unparsed", "t": "timeout"}[letter.lower()]
    graded = verdict != "timeout"
    parts = dict.fromkeys(tables.REWARD_PARTS, 1.0 if graded else None)
    return {
        "prompt_id": row["prompt_id"],
        "sample_id": row["sample_id"],
        "verdict": verdict,
        "extracted": "7" if verdict in ("correct", "wrong") else None,
        "truncated": letter.isupper(),
        **parts,
        "reward": (1.1 if verdict == "correct" else 0.1) if graded else None,
    }


def _weight(row: dict[str, Any], letter: str, letters: str) -> dict[str, Any]:
    mixed = "c" in letters
    share = 1 / letters.count("c") if mixed and letter == "c" else 0.0
    return {
        "prompt_id": row["prompt_id"],
        "sample_id": row["sample_id"],
        "advantage": None if letter == "t" else (0.9 if letter == "c" else -0.9),
        "weight": share,
        "prompt_weight": 1.0,
        "merged_into": None,
    }


def _score(question_id: str, model: str, verdict: str) -> dict[str, Any]:
    return {
        "set": "heldout",
        "question_id": question_id,
        "model": model,
        "sample_id": 0,
        "text": f"I think it is 7. ({model})",
        "verdict": verdict,
        "num_tokens": 9,
        "finish_reason": "stop",
        "extracted": "7",
    }


def _student(store: Store) -> ArtifactRef:
    out = store.begin("train", "1", "d" * 32, None)
    log = [{"step": s + 1, "loss": 2.0 / (s + 1), "learning_rate": 1e-5, "grad_norm": 1.0} for s in range(40)]
    out.write_file("train_log.parquet", tables.encode(pa.Table.from_pylist(log)))
    out.note(tokens={"completion": 4000}, metrics={"too_long": 1, "empty": 0})
    return out.commit({}, {})


def _commit(
    store: Store,
    stage: str,
    table: str,
    parts: dict[str, list[dict[str, Any]]],
    metrics: dict[str, Any] | None = None,
    tokens: int = 0,
    key: str = "c",
) -> ArtifactRef:
    out = store.begin(stage, "1", key * 32, table)
    for prefix, rows in parts.items():
        out.write_tables([tables.from_rows(rows, tables.SCHEMAS[table])], prefix)
    out.note(tokens={"generated": tokens} if tokens else {}, metrics=metrics)
    return out.commit({}, {})
