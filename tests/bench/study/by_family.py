"""`python -m tests.bench.study.by_family RECORD...`: a comparison of short sums, split by their terms.

RECORD is `ROOT/runs/RUN.json` of an `advdistill compare`; of an unfinished one the arms that are
measured. Writes `results/smollm2.csv` (a row per answer) and prints the tables.
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

TARGET = Path(__file__).parent / "results" / "smollm2.csv"
LEVEL = 0.95

Row = dict[str, Any]


def main() -> None:
    rows = list({(r["arm"], r["seed"], r["question"]): r for r in _answers(map(Path, sys.argv[1:]))}.values())
    with open(TARGET, "w", newline="") as file:
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
        print(f"{row['set']:9} {row['arm']:12} {percent(row['accuracy'])} ({span}), {row['num_seeds']} seeds")
    for row in differences(outcomes, "advdistill", LEVEL):
        span = f"{points(row['low'])} to {points(row['high'])}"
        print(
            f"{row['set']:9} {row['arm']:12} minus AdvDistill {points(row['difference'])} ({span}), "
            f"p {row['p_holm']:.3f}"
        )


def _is(row: Row, arm: str, seed: int | None) -> bool:
    return bool(row["arm"] == arm and row["seed"] == seed)


def _answers(records: Iterator[Path]) -> Iterator[Row]:
    for record in records:
        stages = json.loads(record.read_text())["stages"]
        questions = {r["prompt_id"]: r for r in _rows(stages["load"]["uri"], "heldout")}
        for label, stage in stages.items():
            if found := re.fullmatch(r"evaluate (\S+?)(?: (\d+))?", label):
                seed = int(found[2]) if found[2] else None
                for row in _rows(stage["uri"]):
                    question = questions[row["question_id"]]["messages"][-1]["content"]
                    terms = len(re.findall(r"\d+", question))
                    own = {"arm": found[1], "seed": seed, "question": question, "family": f"{terms} terms"}
                    yield row | own


def _rows(folder: str, name: str = "") -> list[Row]:
    return [
        row
        for part in sorted(Path(folder).glob(f"{name}*.parquet"))
        for row in pq.read_table(part).to_pylist()
    ]


if __name__ == "__main__":
    main()
