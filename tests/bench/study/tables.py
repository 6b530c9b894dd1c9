"""From the files of results to the study's tables; partial results give partial tables."""

import csv
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from advdistill_core.compare import ARMS, MAIN, Outcome, accuracies, differences
from advdistill_core.report.wording import number, percent, points
from tests.bench.study.run import variant

LEVEL = 0.95
BASELINES = ("sft-1", "sft-all", "rft", "best-of-k")
ALL_PROMPTS = "sft-all@prompts"
_RAW = ("arm", "seed", "set", "sampling", "correct", "unparsed", "truncated", "num_answers", "mean_tokens")

Row = dict[str, Any]


def write_tables(folder: Path, target: Path) -> None:
    """Write the raw answers, the tables as CSV and `tables.md`."""
    target.mkdir(parents=True, exist_ok=True)
    results = sorted(_read(folder / "results"), key=lambda r: (_place(r["arm"]), r["seed"]))
    if not results:
        raise SystemExit(f"{folder / 'results'} holds no result yet: run the study first.")
    outcomes = [_outcome(result, found) for result in results for found in result["sets"]]
    raw = [{"arm": r["arm"], "seed": r["seed"], **found} for r in results for found in r["sets"]]
    table = pa.Table.from_pylist([{name: row[name] for name in _RAW} for row in raw])
    pq.write_table(table, target / "answers.parquet", compression="zstd")
    shares, against = accuracies(outcomes, LEVEL), differences(outcomes, "advdistill", LEVEL)
    _write_csv(target / "accuracies.csv", shares)
    _write_csv(target / "differences.csv", against)
    _write_csv(target / "runs.csv", [_facts(result) for result in results])
    setting = json.loads((folder / "setting.json").read_text())
    (target / "tables.md").write_text("\n".join(_document(setting, results, outcomes, shares)) + "\n")


def _read(folder: Path) -> Iterator[Row]:
    for path in sorted(folder.glob("*.json")):
        yield json.loads(path.read_text())


def _place(name: str) -> tuple[Any, ...]:
    found = variant(name)
    return (
        [*ARMS].index(found.arm.name),
        not found.equal_tokens,
        found.unpruned,
        found.second_rate or 0.0,
    )


def _outcome(result: Row, found: Row) -> Outcome:
    values = {"1": 1.0, "0": 0.0, "-": np.nan}
    correct = np.array([[values[c] for c in question] for question in found["correct"].split()])
    counts = (found["unparsed"], found["truncated"], found["num_answers"], found["mean_tokens"])
    return Outcome(result["arm"], result["seed"], found["set"], found["sampling"], correct, *counts)


def _facts(result: Row) -> Row:
    facts, styles = result["facts"], result["sets"][0].get("styles", {})
    names = (
        *("max_steps", "groups_per_step", "mixed", "all_correct", "all_wrong", "trained_responses"),
        *("effective_sample_size", "weight_on_correct_frac", "loss_last"),
    )
    return {
        "arm": result["arm"],
        "seed": result["seed"],
        "tokens": result["tokens"],
        "cpu_s": result["cpu_s"],
        **{name: facts.get(name) for name in names},
        **{f"greedy_{name}": value for name, value in styles.items()},
    }


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})


# -- the document ---------------------------------------------------------------------------


def _document(
    setting: Row, results: Sequence[Row], outcomes: Sequence[Outcome], shares: Sequence[Row]
) -> Iterator[str]:
    runs = [r for r in results if r["tokens"]]
    yield "# Tables of the study\n"
    yield "Written by `python -m tests.bench.study tables`; the reading of them is in `../README.md`.\n"
    yield f"Setting: `{json.dumps(setting)}`.\n"
    first = next(r for r in results if r["arm"] == "advdistill")["facts"]
    yield (
        f"Teacher's responses of seed 0, by verdict: {first['verdicts']}; prompts: {first['mixed']} mixed, "
        f"{first['all_correct']} all correct, {first['all_wrong']} all wrong.\n"
    )
    names = list(dict.fromkeys(row["arm"] for row in shares))
    yield "## Accuracy, and as a share of the teacher's\n"
    yield "95 % intervals over questions, seeds and samples of a question averaged first.\n"
    yield from _accuracy_table(shares, [name for name in names if name in MAIN])
    yield from _section(
        "AdvDistill as configured against the baselines, equal steps and equal tokens",
        _against_baselines(outcomes, "advdistill"),
        "AdvDistill minus the baseline in points; p by Holm over the baselines of a set.\n",
    )
    yield from _section(
        "AdvDistill with every weight kept (`least-0`) against the baselines",
        _against_baselines(outcomes, "least-0"),
    )
    yield from _effects([name for name in names if variant(name).arm.trained], outcomes, shares)
    yield from _section("What each arm trained on", _spent_table(runs))


def _section(title: str, lines: Iterator[str], note: str = "") -> Iterator[str]:
    """A section, or nothing where there is nothing to show."""
    found = list(lines)
    if found:
        yield f"\n## {title}\n"
        yield from [note] if note else []
        yield from found


def _effects(names: Sequence[str], outcomes: Sequence[Outcome], shares: Sequence[Row]) -> Iterator[str]:
    """Differences of the trained arms by what they are compared with, then their accuracies."""
    kept = [name for name in names if variant(name).unpruned]
    later = [name for name in names if variant(name).second_rate is not None]
    equal = [name for name in names if not variant(name).equal_tokens]
    plain = [name for name in names if name not in (*kept, *later, *equal, "advdistill")]
    prompts = [name for name in equal if name != ALL_PROMPTS]

    def against(reference: str, arms: Sequence[str]) -> Iterator[str]:
        return _difference_table(differences(outcomes, reference, LEVEL, arms), arms)

    yield from _section(
        "Every arm minus AdvDistill as configured",
        against("advdistill", plain),
        "Paired difference in points on the same questions and seeds; p by Holm over the arms of a set.\n",
    )
    yield from _section(
        "As many prompts in a step, in place of as many tokens: every arm minus SFT on all",
        against(ALL_PROMPTS, prompts),
    )
    yield from _section(
        "Every weight kept: every arm minus AdvDistill with every weight kept", against("least-0", kept)
    )
    yield from _section(
        "A second stage on wrong responses, minus as many more steps on right ones",
        _second_stage(outcomes, later),
    )
    others = [name for name in (*plain, *later) if name not in MAIN]
    for title, members in (
        ("One setting at a time, rewards, second stages", ["advdistill", *others] if others else []),
        ("With every weight kept", ["least-0", *kept] if kept else []),
        ("With as many prompts in a step", equal),
    ):
        yield from _section(f"{title}: accuracy", _accuracy_table(shares, members))


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table, or nothing without rows."""
    if not rows:
        return
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _second_stage(outcomes: Sequence[Outcome], names: Sequence[str]) -> Iterator[str]:
    """A table per learning rate; the control has the steps and the rate, and no wrong response."""
    for rate in sorted({variant(name).second_rate or 0.0 for name in names}):
        same = [name for name in names if variant(name).second_rate == rate]
        control = next((name for name in same if variant(name).arm.name == "more-steps"), None)
        others = [name for name in same if name != control]
        if control is not None and others:
            yield f"\nLearning rate {rate:g}:\n"
            yield from _difference_table(differences(outcomes, control, LEVEL, others), others)


def _title(arm: str) -> str:
    return variant(arm).title


def _places(rows: Sequence[Row]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["set"], row["sampling"]) for row in rows))


def _accuracy_table(shares: Sequence[Row], names: Sequence[str]) -> Iterator[str]:
    places = _places(shares)
    found = {(row["arm"], row["set"], row["sampling"]): row for row in shares}
    rows = []
    for name in names:
        members = [found.get((name, *place)) for place in places]
        if any(members):
            seeds = next(row["num_seeds"] for row in members if row)
            rows.append([_title(name), str(seeds), *(_share(row) for row in members)])
    yield from _markdown(["Arm", "Seeds", *(f"{name}, {how}" for name, how in places)], rows)


def _share(row: Row | None) -> str:
    if row is None:
        return ""
    span = f"{percent(row['accuracy'])} ({100 * row['accuracy_low']:.1f} to {100 * row['accuracy_high']:.1f})"
    return span + ("" if row["of_teacher"] is None else f"; {percent(row['of_teacher'], 0)} of teacher")


def _against_baselines(outcomes: Sequence[Outcome], arm: str) -> Iterator[str]:
    """The arm minus each baseline, turned round from each baseline minus the arm."""
    rows = differences(outcomes, arm, LEVEL, BASELINES)
    turned = [
        row | {"difference": -row["difference"], "low": -row["high"], "high": -row["low"]} for row in rows
    ]
    yield from _difference_table(turned, BASELINES)


def _difference_table(rows: Sequence[Row], names: Sequence[str]) -> Iterator[str]:
    places = _places(rows)
    found = {(row["arm"], row["set"], row["sampling"]): row for row in rows}
    lines = []
    for name in names:
        members = [found.get((name, *place)) for place in places]
        if any(members):
            seeds = next(row["num_seeds"] for row in members if row)
            lines.append([_title(name), str(seeds), *(_difference(row) for row in members)])
    yield from _markdown(["Arm", "Seeds", *(f"{name}, {how}" for name, how in places)], lines)


def _difference(row: Row | None) -> str:
    if row is None:
        return ""
    p = "p < 0.001" if row["p_holm"] < 0.001 else f"p {row['p_holm']:.3f}"
    return f"{points(row['difference'])} ({points(row['low'])} to {points(row['high'])}), {p}"


def _spent_table(results: Sequence[Row]) -> Iterator[str]:
    grouped: dict[str, list[Row]] = defaultdict(list)
    for result in results:
        grouped[result["arm"]].append(result)
    rows = []
    for arm, members in grouped.items():
        facts = [member["facts"] for member in members]
        styles = [member["sets"][0].get("styles", {}) for member in members]
        rows.append(
            [
                _title(arm),
                number(fmean(m["tokens"] for m in members)),
                number(fmean(f.get("groups_per_step", 16) for f in facts)),
                number(fmean(f["trained_responses"] for f in facts)),
                number(fmean(f["effective_sample_size"] for f in facts)),
                percent(fmean(f["weight_on_correct_frac"] for f in facts)),
                percent(fmean(s.get("bare_frac", 0.0) for s in styles)),
                number(fmean(m["cpu_s"] for m in members)),
            ]
        )
    head = ["Arm", "Tokens", "Prompts a step", "Responses with weight", "Effective responses a prompt"]
    yield from _markdown([*head, "Weight on correct", "Bare answers, greedy", "CPU s"], rows)
