"""Several evaluation sets and ways of sampling: what counts as the same, and what does not."""

import json
from pathlib import Path
from typing import Any

import pytest

from advdistill_core.config import DistillConfig
from advdistill_core.errors import StageError
from advdistill_core.stages import EVALUATE, LOAD, QUESTIONS, plan_stage, run_stage
from advdistill_core.store import ArtifactRef, Store

TINY = "tiny-random-llama"


def configured(folder: Path, **evaluation: Any) -> DistillConfig:
    for name, count in (("prompts", 12), ("harder", 5)):
        rows = [{"question": f"{name}: what is {i} + {i}?", "answer": str(2 * i)} for i in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DistillConfig.model_validate(
        {
            "prompts": {
                "source": "file",
                "path": str(folder / "prompts.jsonl"),
                "num_train": 8,
                "num_heldout": 4,
            },
            "student": {"model": TINY},
            "teacher": {"model": TINY},
            "evaluation": {"max_new_tokens": 4, "device": "cpu", **evaluation},
        }
    )


def harder(folder: Path, **changes: Any) -> dict[str, Any]:
    path = str(folder / "harder.jsonl")
    return {"name": "harder", "source": "file", "path": path, "num_questions": 5, **changes}


def loaded(config: DistillConfig, store: Store) -> ArtifactRef:
    return run_stage(LOAD, config, {}, store)


def test_a_set_has_its_own_questions_under_its_name(tmp_path: Path) -> None:
    store, config = Store(str(tmp_path / "s")), configured(tmp_path, sets=[harder(tmp_path)], more_samples=3)
    asked = run_stage(QUESTIONS, config, {}, store, {"set": "harder"})
    assert (asked.rows, store.open(asked).table("train").num_rows) == (5, 0)
    scores = {
        sampling: store.open(
            run_stage(
                EVALUATE,
                config,
                {"prompts": asked},
                store,
                {"model": "student_before", "set": "harder", **({"sampling": sampling} if sampling else {})},
            )
        ).table()
        for sampling in ("", "samples")
    }
    assert set(scores[""]["set"].to_pylist()) == {"harder"}
    assert (scores[""].num_rows, scores["samples"].num_rows) == (5, 15)
    assert sorted(set(scores["samples"]["sample_id"].to_pylist())) == [0, 1, 2]


def test_what_a_set_is_called_and_the_other_sets_change_nothing(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "s"))
    one = configured(tmp_path, sets=[harder(tmp_path)])
    two = configured(tmp_path, sets=[harder(tmp_path, name="a"), harder(tmp_path, name="b", num_questions=4)])

    def questions(config: DistillConfig, name: str) -> str:
        return run_stage(QUESTIONS, config, {}, store, {"set": name}).content_hash

    assert questions(one, "harder") == questions(two, "a") != questions(two, "b")
    prompts = loaded(one, store)
    params = {"model": "student_before"}
    plain = configured(tmp_path)
    prints = {
        plan_stage(EVALUATE, config, {"prompts": prompts}, store, params).fingerprint
        for config in (plain, one, two, configured(tmp_path, more_samples=4, contamination="drop"))
    }
    assert len(prints) == 1, "the held-out questions are not answered again for a new set"


def test_further_samples_are_others_than_the_ordinary_answers(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "s"))
    configs = [configured(tmp_path, more_samples=n) for n in (2, 3)]
    prompts = loaded(configs[0], store)
    params = {"model": "student_before", "sampling": "samples"}
    prints = {plan_stage(EVALUATE, c, {"prompts": prompts}, store, params).fingerprint for c in configs}
    assert len(prints) == 2


@pytest.mark.parametrize("model", ["student_after", "champion"])
def test_a_trained_model_must_be_given(tmp_path: Path, model: str) -> None:
    store, config = Store(str(tmp_path / "s")), configured(tmp_path)
    with pytest.raises(StageError, match=f"got no {model}"):
        run_stage(EVALUATE, config, {"prompts": loaded(config, store)}, store, {"model": model})


@pytest.mark.parametrize(
    ("evaluation", "what"),
    [
        ({"sets": [{"name": "heldout"}]}, "name must not be heldout"),
        ({"sets": [{"name": "a"}, {"name": "a"}]}, "sets must have different names"),
        ({"more_temperature": 1.0}, "more_temperature would be ignored"),
        ({"harness": {"limit": 5}}, "limit would be ignored"),
    ],
)
def test_settings_that_make_no_sense_are_refused(evaluation: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        DistillConfig.model_validate({"evaluation": evaluation})
