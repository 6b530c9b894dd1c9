"""`advdistill verify`: verdicts for answers in a file."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from advdistill_core.config import RewardsConfig
from advdistill_core.progress import Event, Progress, silent
from advdistill_core.rewards import Answer, Graded, Grader
from advdistill_core.rewards.audit import Case, disagreements
from advdistill_core.rewards.files import Row, num_rows, read_batches, to_answer, write_batches
from advdistill_core.rewards.judge_model import JudgeModel

_AUDIT_SAMPLE = 1000
_REMEMBERED = 100_000  # gold answers; a file of a million stays within bounded memory


def verify_files(
    source: Path,
    target: Path,
    task: str,
    config: RewardsConfig | None = None,
    progress: Progress = silent,
    audit: Path | None = None,
    audit_sample: int = _AUDIT_SAMPLE,
) -> dict[str, int]:
    """Add `verdict` and `extracted` to rows with `gold` and `prediction`.

    Other columns are kept, the order as well. A gold answer that cannot be graded against
    makes the verdict `error`. The files may be JSONL or Parquet, told by their suffix.

    Args:
        target: appears whole or not at all.
        audit: also write a table of the rows among the first `audit_sample` on which an
            independent grader disagrees.

    Returns:
        Counts: rows, one for each verdict that occurred, ungradable, and disagreements.

    Raises:
        InputError: no such task, or a row that cannot be read; it is named.
    """
    work = _Verification(source, task, config or RewardsConfig(), progress, audit_sample if audit else 0)
    with work.grader:
        write_batches(target, work.batches())
        if audit is not None:
            rows = disagreements(work.cases, work.grader, audit_sample, judge_model=_judge_model(work.config))
            write_batches(audit, [rows] if rows else [])
            work.counts["disagreements"] = len(rows)
    return dict(work.counts)


def _judge_model(config: RewardsConfig) -> JudgeModel | None:
    return JudgeModel(config.judge_url, config.judge_model) if config.judge_url else None


class _Verification:
    """One pass over a file, a batch at a time."""

    def __init__(self, source: Path, task: str, config: RewardsConfig, progress: Progress, keep: int) -> None:
        self.source, self.task, self.config, self.progress, self.keep = source, task, config, progress, keep
        self.grader = Grader(config)
        self.grader.require(task)
        self.total = num_rows(source)
        self.counts: Counter[str] = Counter(rows=0)
        self.cases: list[Case] = []
        self.gradable: dict[tuple[str, tuple[str, ...], str], bool] = {}

    def batches(self) -> Iterator[list[Row]]:
        for batch in read_batches(self.source):
            answers = [to_answer(where, row, self.task) for where, row in batch]
            rows = [row for _, row in batch]
            for row, answer, graded in zip(rows, answers, self._grade(answers), strict=True):
                row["verdict"] = graded.verdict
                row["extracted"] = graded.extracted
                self.counts["rows"] += 1
                self.counts[graded.verdict] += 1
                if len(self.cases) < self.keep:
                    self.cases.append(Case(str(row.get("id", self.counts["rows"])), answer, graded))
            self._show()
            yield rows

    def _grade(self, answers: list[Answer]) -> list[Graded]:
        """Verdicts, where the gold answer can be graded against."""
        keys = [(answer.reference, answer.choices, answer.source) for answer in answers]
        if len(self.gradable) > _REMEMBERED:
            self.gradable.clear()
        new = {str(i): answer for i, answer in enumerate(answers) if keys[i] not in self.gradable}
        bad = set(self.grader.check_references(new))
        self.gradable.update({keys[int(name)]: name not in bad for name in new})
        asked = [index for index, key in enumerate(keys) if self.gradable[key]]
        self.counts["ungradable"] += len(answers) - len(asked)
        verdicts = dict(zip(asked, self.grader.grade([answers[i] for i in asked]), strict=True))
        return [verdicts.get(index, _UNGRADABLE) for index in range(len(answers))]

    def _show(self) -> None:
        done = self.counts["rows"]
        figures = {"correct": self.counts["correct"] / done}
        self.progress(Event(stage="verify", done=done, total=self.total, unit="rows", figures=figures))


_UNGRADABLE = Graded("error")
