"""`python -m tests.bench.study.by_family NAME REFERENCE RECORD...`: a comparison, split by family.

RECORD is `ROOT/runs/RUN.json` of an `advdistill compare`; of an unfinished one the arms that are
measured. Writes `results/NAME.csv` (a row per answer) and prints the tables, with what each arm
is ahead of the arm REFERENCE. Without a record the file that exists is read.
"""

import csv
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from advdistill_core.compare import accuracies, differences, outcome_of
from advdistill_core.report.wording import percent, points

RESULTS = Path(__file__).parent / "results"
LEVEL = 0.95

Row = dict[str, Any]


def main() -> None:
    name, reference, *records = sys.argv[1:]
    target = RESULTS / f"{name}.csv"
    found = _answers(map(Path, records)) if records else _stored(target)
    rows = list({(r["arm"], r["seed"], r["question"]): r for r in found}.values())
    with open(target, "w", newline="") as file:
        fields = ("arm", "seed", "family", "question", "verdict", "num_tokens", "finish_reason", "text")
        writer = csv.DictWriter(file, fields, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    outcomes = [
        outcome_of(arm, seed, family, "greedy", chosen)
        for arm, seed in dict.fromkeys((r["arm"], r["seed"]) for r in rows)
        for family in ("both", *sorted({r["family"] for r in rows}))
        if (chosen := [r for r in rows if _is(r, arm, seed) and family in ("both", r["family"])])
    ]
    for row in accuracies(outcomes, LEVEL):
        span = f"{percent(row['accuracy_low'])} to {percent(row['accuracy_high'])}"
        print(
            f"{row['set']:15} {row['arm']:12} {percent(row['accuracy'])} ({span}), {row['num_seeds']} seeds"
        )
    for row in differences(outcomes, reference, LEVEL):
        span = f"{points(row['low'])} to {points(row['high'])}"
        print(
            f"{row['set']:15} {row['arm']:12} minus {reference} {points(row['difference'])} ({span}), "
            f"p {row['p_holm']:.3f}"
        )


def _is(row: Row, arm: str, seed: int | None) -> bool:
    return bool(row["arm"] == arm and row["seed"] == seed)


def _stored(path: Path) -> Iterator[Row]:
    """The rows of an earlier call; their question stands for its id, which orders them alike in all arms."""
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            seed = int(row["seed"]) if row["seed"] else None
            own = {"seed": seed, "num_tokens": int(row["num_tokens"]), "question_id": row["question"]}
            yield {**row, **own, "sample_id": 0}


def _answers(records: Iterator[Path]) -> Iterator[Row]:
    for record in records:
        stages = json.loads(record.read_text())["stages"]
        questions = {r["prompt_id"]: r for r in _rows(stages["load"]["uri"], "heldout")}
        for label, stage in stages.items():
            if found := re.fullmatch(r"evaluate (\S+?)(?: (\d+))?", label):
                seed = int(found[2]) if found[2] else None
                for row in _rows(stage["uri"]):
                    asked = questions[row["question_id"]]
                    question = asked["messages"][-1]["content"]
                    own = {"arm": found[1], "seed": seed, "question": question}
                    yield row | own | {"family": _family(asked["source"], question)}


def _family(source: str, question: str) -> str:
    """A family of reasoning-gym; sums by their number of terms."""
    name = source.removeprefix("reasoning_gym/")
    return f"{len(re.findall(r'[0-9]+', question))} terms" if name == "chain_sum" else name


def _rows(folder: str, name: str = "") -> list[Row]:
    return [
        row
        for part in sorted(Path(folder).glob(f"{name}*.parquet"))
        for row in pq.read_table(part).to_pylist()
    ]


if __name__ == "__main__":
    main()
