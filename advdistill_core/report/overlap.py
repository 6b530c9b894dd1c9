"""Contamination, as the gates recorded it; looked for here where a run had no gate."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from advdistill_core.evaluation import contamination
from advdistill_core.evaluation.stage import HELDOUT
from advdistill_core.report.gather import Group, Question
from advdistill_core.store import Artifact

_MAX_MATCHES = 200
_SIDES = {"prompts": "in_prompts", "responses": "in_responses"}


def overlap(
    groups: Sequence[Group], heldout: Mapping[str, Question], inputs: Mapping[str, Artifact]
) -> dict[str, Any]:
    """Evaluation questions that training prompts or responses repeat."""
    records = {
        side: inputs[name].manifest.metrics["contamination"]
        for name, side in _SIDES.items()
        if "contamination" in inputs[name].manifest.metrics
    }
    return _recorded(records) if len(records) == len(_SIDES) else _looked_for(groups, heldout)


def _recorded(records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    matches = [match for record in records.values() for match in record["matches"]]
    sets = next(iter(records.values()))["sets"]
    return {
        "policy": next(iter(records.values()))["policy"],
        "num_questions": len({(match["set"], match["question_id"]) for match in matches}),
        "num_dropped": sum(record["num_dropped"] for record in records.values()),
        **{
            side: dict(sum((Counter(found["matches"]) for found in record["sets"].values()), Counter()))
            for side, record in records.items()
        },
        "sets": {
            name: {
                "num_questions": found["num_questions"],
                **{side: sum(record["sets"][name]["matches"].values()) for side, record in records.items()},
            }
            for name, found in sets.items()
        },
        "common_templates": sum(found["common_templates"] for found in sets.values()),
        "questions_of_common_templates": sum(
            found["questions_of_common_templates"] for found in sets.values()
        ),
        "matches": matches[:_MAX_MATCHES],
    }


def _looked_for(groups: Sequence[Group], heldout: Mapping[str, Question]) -> dict[str, Any]:
    index = contamination.QuestionIndex(
        ((q.id, q.text) for q in heldout.values()), (g.question.text for g in groups)
    )
    in_prompts = list(contamination.find_all(index, ((g.question.id, g.question.text) for g in groups)))
    trained = (
        (f"{g.question.id} / {r['sample_id']}", r["text"])
        for g in groups
        for r in g.responses
        if r["weight"] > 0
    )
    in_responses = list(contamination.find_all(index, trained))
    return {
        "policy": "warn",
        "num_questions": len({m.question_id for m in in_prompts + in_responses}),
        "num_dropped": 0,
        "in_prompts": dict(Counter(m.kind for m in in_prompts)),
        "in_responses": dict(Counter(m.kind for m in in_responses)),
        "sets": {
            HELDOUT: {
                "num_questions": len(heldout),
                "in_prompts": len(in_prompts),
                "in_responses": len(in_responses),
            }
        },
        "common_templates": index.num_common_templates,
        "questions_of_common_templates": index.num_questions_of_common_templates,
        "matches": [{"set": HELDOUT, **asdict(m)} for m in (in_prompts + in_responses)[:_MAX_MATCHES]],
    }
