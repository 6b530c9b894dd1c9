"""How the verifiers fare on pairs, extraction cases and real outputs, with every disagreement.

    python tests/bench/verify_conformance.py

Writes a section of `results/verification.md`. A disagreement gets its reason from a rule
below; the run fails if one is left without.
"""

import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from advdistill_core.config import PolicyConfig, RewardsConfig
from advdistill_core.rewards import Answer, Graded, Grader, extract
from advdistill_core.rewards.verifiers.choice import find_choice

sys.path.insert(0, __file__.rsplit("/", 1)[0])
from verify_results import DATA, markdown_table, store_section

_FORMS = {("latex",): "latex", ("expr",): "text"}
_NAMES = {
    "precision": "decimal_places",
    "strict": "strict_variables",
    "allow_set_relation_comp": "interval_equals_relation",
}
_CLAIM = re.compile(r"(?i:answer(?:\s+is|:))\W{0,12}(?:text\W{0,3}|boxed\W{0,3})?([A-J])(?![A-Za-z])")


def rows_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def pairs() -> str:
    """The 260 pairs of math-verify, each under the settings that upstream tests it with."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows_of("verifier/pairs_math_verify.jsonl"):
        options = {_NAMES[key]: value for key, value in row.get("options", {}).items()}
        forms = _FORMS.get(tuple(row.get("match_types") or ()), "both")
        groups[json.dumps({"answer_forms": forms, **options})].append(row)
    good, misses = 0, []
    for policy, members in groups.items():
        with Grader(RewardsConfig(policy=PolicyConfig(**json.loads(policy)))) as grader:
            graded = grader.grade([Answer("math", row["gold"], row["prediction"]) for row in members])
        for row, one in zip(members, graded, strict=True):
            good += (one.verdict == "correct") == row["expected"]
            if (one.verdict == "correct") != row["expected"]:
                misses.append(f"{row['id']}: expected {row['expected']}, here {one.verdict}")
    total = sum(map(len, groups.values()))
    why = "mv-255 expects 1 - 1/e to equal 1 + 1/e, which is false."
    return f"pairs_math_verify: {good} of {total} as expected. Others: {'; '.join(misses)}. {why}"


def extraction() -> str:
    good, rows = 0, rows_of("verifier/extraction_cases.jsonl")
    with Grader(RewardsConfig(num_workers=1)) as grader:
        for row in rows:
            expected = None if row["none"] else row["expected"]
            if row["kind"] == "last_boxed":
                found = extract.last_boxed(row["text"])
            elif row["kind"] == "choice_letter":
                found = find_choice(row["text"], "ABCD")
            else:
                found = grader.grade([Answer("math", row["expected"], row["text"])])[0].extracted
            good += found == expected
    return f"extraction_cases: {good} of {len(rows)}."


def math_outputs(name: str) -> str:
    rows = rows_of(f"outputs/{name}.jsonl")
    with Grader(RewardsConfig()) as grader:
        graded = grader.grade([Answer("math", row["gold"], row["output"]) for row in rows])
    table = Counter((row["expected"], one.verdict) for row, one in zip(rows, graded, strict=True))
    listed: list[list[object]] = [
        [
            row["id"],
            row["gold"],
            (one.extracted or "")[:40],
            row["expected"],
            one.verdict,
            _why_math(row, one),
        ]
        for row, one in zip(rows, graded, strict=True)
        if (one.verdict == "correct") != row["expected"]
    ]
    text = confusion(name, len(rows), "label", table)
    return text + ("\n\n" + disagreements(listed) if listed else "\n\nNo disagreement.")


def _why_math(row: dict[str, Any], one: Graded) -> str:
    given = one.extracted or ""
    if one.verdict == "correct" and re.sub(r"\D", "", given) == re.sub(r"\D", "", row["gold"]):
        if "text" in given:
            return "the same words; only how \\text{} cuts them differs: ours is right"
        return "the same number; only its separators differ: ours is right, the label is wrong"
    return ""


def choice_outputs() -> str:
    choices = {row["id"]: tuple(row["choices"]) for row in rows_of("eval/mmlu_pro_test.jsonl")}
    rows = rows_of("outputs/mmlu_pro_outputs_sample.jsonl")
    with Grader(RewardsConfig(num_workers=1)) as grader:
        answers = [Answer("choice", r["gold"], r["output"], choices=choices[r["question_id"]]) for r in rows]
        graded = grader.grade(answers)
    table: Counter[tuple[object, str]] = Counter()
    listed: list[list[object]] = []
    for row, one in zip(rows, graded, strict=True):
        label = row.get("published_pred")
        verdict = "unparsed" if label is None else "correct" if label == row["gold"] else "wrong"
        table[verdict, one.verdict] += 1
        if one.extracted != label:
            why = _why_choice(row, one, choices[row["question_id"]])
            listed.append([row["id"], row["gold"], one.extracted or "", label or "", one.verdict, why])
    text = confusion("mmlu_pro_outputs_sample", len(rows), "published letter", table)
    reasons = Counter(str(row[-1]) for row in listed)
    summary = markdown_table(["reason", "rows"], [[why, n] for why, n in reasons.most_common()])
    return f"{text}\n\n{summary}\n\n{disagreements(listed)}"


def _why_choice(row: dict[str, Any], one: Graded, choices: tuple[str, ...]) -> str:
    label, output = row.get("published_pred"), row["output"]
    claims = _CLAIM.findall(output)
    found = one.extracted
    if found and ", " in found:
        return "several options are claimed at once: no answer"
    if found and label and label in claims and found in claims:
        return "the model states several answers: the last one counts here, the first one there"
    if found is None and label is not None and label not in claims[-1:]:
        return "no letter is claimed; the published letter is a stray one of the text or a guess"
    if found and label is None:
        option = choices["ABCDEFGHIJ".index(found)].strip().rstrip(".").casefold()
        named = re.sub(r"[\W_]+", "", option) in re.sub(r"[\W_]+", "", output.casefold()[-2000:])
        if re.search(rf"\({found}\)|\b{found}\b", output[-600:]):
            return "the letter is claimed in words that the published pattern does not know"
        if named or "boxed" in output:
            return "the option's own text is given as the answer"
    if found and label and re.search(rf"\({found}\)|\b{found}[.:)]|boxed|\b{found}\b", output[-1500:]):
        return "the final statement names this letter or the option's text; the published one stands earlier"
    return ""


def confusion(name: str, total: int, head: str, table: Counter[tuple[Any, str]]) -> str:
    labels = sorted({label for label, _ in table}, key=str)
    verdicts = [
        v for v in ("correct", "wrong", "unparsed", "timeout", "error") if any(k[1] == v for k in table)
    ]
    rows: list[list[object]] = [[label, *[table[label, verdict] for verdict in verdicts]] for label in labels]
    return f"### {name} ({total} rows)\n\n" + markdown_table([f"{head} \\ verdict here", *verdicts], rows)


def disagreements(rows: Iterable[list[object]]) -> str:
    rows = list(rows)
    unexplained = [row[0] for row in rows if not row[-1]]
    if unexplained:
        raise SystemExit(f"disagreements without a reason: {unexplained}")
    head = ["id", "gold", "extracted here", "label", "verdict here", "reason"]
    return "Disagreements:\n\n" + markdown_table(head, rows)


def main() -> None:
    parts = [
        "`python tests/bench/verify_conformance.py`",
        pairs(),
        extraction(),
        math_outputs("gsm8k_gpt3_solutions"),
        math_outputs("math_qwen25_samples"),
        choice_outputs(),
    ]
    store_section("Conformance", "\n\n".join(parts))
    print("\n\n".join(part.split("Disagreements:")[0] for part in parts))


if __name__ == "__main__":
    main()
