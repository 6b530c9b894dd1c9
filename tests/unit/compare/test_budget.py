"""Equal steps and equal tokens, by hand and through the stage's own schedule."""

from pathlib import Path

import pytest

from advdistill_core.compare import Budget, Load, budget_of, load_of, within
from advdistill_core.config import StudentConfig
from advdistill_core.store import Artifact, Store, tables


def artifacts(folder: Path, rows: list[tuple[str, int, int, float]]) -> tuple[Artifact, Artifact]:
    """Responses and weights from (prompt, sample, tokens, weight)."""
    store = Store(str(folder))
    responses = [
        {
            "prompt_id": p,
            "sample_id": s,
            "text": "x",
            "finish_reason": "stop",
            "num_tokens": tokens,
            "teacher": "t",
            "seed": 0,
            "request_hash": "0",
        }
        for p, s, tokens, _ in rows
    ]
    weights = [
        {
            "prompt_id": p,
            "sample_id": s,
            "advantage": 0.0,
            "weight": weight,
            "prompt_weight": 0.0 if p == "none" else 1.0,
            "merged_into": None,
        }
        for p, s, _, weight in rows
    ]
    made = []
    for stage, table, content in (("generate", "responses", responses), ("weigh", "weights", weights)):
        out = store.begin(stage, "1", "0" * 32, table)
        out.write_tables(iter([tables.from_rows(content, tables.SCHEMAS[table])]))
        made.append(store.open(out.commit({}, {})))
    return made[0], made[1]


def test_a_load_counts_what_has_weight(tmp_path: Path) -> None:
    rows = [("a", 0, 10, 0.5), ("a", 1, 20, 0.0), ("b", 0, 5, 0.1), ("b", 1, 7, 0.9), ("none", 0, 99, 1.0)]
    assert load_of(*artifacts(tmp_path, rows)) == Load(num_groups=2, num_tokens=22)


def test_the_budget_is_what_the_reference_spends() -> None:
    load = Load(num_groups=10, num_tokens=1000)  # 100 tokens a prompt
    assert budget_of(StudentConfig(epochs=3, groups_per_step=4), load) == Budget(9, 400.0)
    assert budget_of(StudentConfig(max_steps=7, groups_per_step=4), load) == Budget(7, 400.0)
    assert budget_of(StudentConfig(groups_per_step=50), load) == Budget(1, 1000.0)


@pytest.mark.parametrize(
    ("load", "prompts"),
    [
        (Load(10, 1000), 4),  # the reference itself
        (Load(10, 500), 8),  # half as long: twice as many
        (Load(10, 125), 10),  # shorter still: a step holds no prompt twice
        (Load(1000, 1_000_000), 1),  # longer than a step: one, at least
        (Load(0, 0), 1),
    ],
)
def test_an_arm_gets_as_many_prompts_as_hold_the_tokens(load: Load, prompts: int) -> None:
    fields = within(Budget(9, 400.0), load)
    assert fields == {"max_steps": 9, "epochs": 1, "groups_per_step": prompts}
    StudentConfig(**fields)  # type: ignore[arg-type]
