"""`Grader`: verdicts for any number of answers, from any thread."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from advdistill_core.config import RewardsConfig
from advdistill_core.rewards.judge import Judge
from advdistill_core.rewards.pool import Job, Pool
from advdistill_core.rewards.types import UNDECIDED, Answer, Graded, Part

_REMEMBERED = 50_000
_REMEMBERED_CHARS = 300  # longer pieces hardly repeat
_SPREAD_FROM = 4096  # answers in one call from which the glance is worth sending to workers

_Key = tuple[str, str, tuple[str, ...], str, str]


class Grader:
    """Grades answers; a context manager that owns its worker processes.

    Plain numbers and letters are decided at once in the calling process. What needs
    computer algebra goes to workers under `timeout_s` and `memory_bytes` each. Equal
    answers to equal references are judged once.

    Args:
        config: the policy and the limits.
    """

    def __init__(self, config: RewardsConfig) -> None:
        self.config = config
        self._judge = Judge(config.policy)
        self.pool = Pool(
            config.num_workers, config.timeout_s, config.memory_bytes, config.policy.model_dump(mode="json")
        )
        self._lock = threading.Lock()
        self._known: OrderedDict[_Key, Graded] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; the grader may be used again, which starts new ones."""
        with self._lock:
            self.pool.close()

    def require(self, task: str) -> None:
        """Refuse a task before any work is done.

        Raises:
            InputError: no verifier has it.
        """
        self._judge.verifier(task)

    def grade(self, items: Sequence[Answer]) -> list[Graded]:
        """Grade answers, in their order.

        Raises:
            InputError: a task that no verifier has.
        """
        for task in {item.task for item in items}:
            self.require(task)
        spread = self.pool.num_workers > 1 and len(items) >= _SPREAD_FROM
        results: list[Graded | None] = [None] * len(items)
        waiting: dict[_Key, list[int]] = {}
        jobs: list[Job] = []
        first: list[int] = []  # for each job, the answer that it stands for
        for index, item in enumerate(items):
            seen: Graded | Part | None = None if spread else self._judge.glance(item)
            if isinstance(seen, Graded):
                results[index] = seen
                continue
            key = _key(item, item.text if seen is None else seen.text)
            if key in waiting:
                waiting[key].append(index)
                continue
            waiting[key] = [index]
            if seen is not None and (known := self._known.get(key)) is not None:
                results[index] = known
                continue
            jobs.append(Job("answer", _without_text(item) if seen else item, seen))
            first.append(index)
        if jobs:
            with self._lock:
                for number, graded in self.pool.run(jobs, self._modules({job.answer.task for job in jobs})):
                    results[first[number]] = graded
        return self._fill(results, waiting)

    def check_references(self, items: Mapping[str, Answer]) -> list[str]:
        """Find the prompts that nothing can be graded against.

        Args:
            items: for each prompt id an answer with its task and reference; the text is
                not looked at.

        Returns:
            The ids whose reference cannot be parsed or does not equal itself, in order.
        """
        ungradable: set[str] = set()
        jobs: list[Job] = []
        ids: list[str] = []
        for prompt_id, item in items.items():
            gradable = self._judge.verifier(item.task).glance_reference(item)
            if gradable is None:
                jobs.append(Job("reference", _without_text(item)))
                ids.append(prompt_id)
            elif not gradable:
                ungradable.add(prompt_id)
        if jobs:
            with self._lock:
                for number, graded in self.pool.run(jobs, self._modules({job.answer.task for job in jobs})):
                    if graded.verdict != "correct":
                        ungradable.add(ids[number])
        return [prompt_id for prompt_id in items if prompt_id in ungradable]

    def second_opinions(self, items: Sequence[Answer]) -> list[Graded | None]:
        """What independent graders say of whole responses; None where there is none."""
        opinions: list[Graded | None] = [None] * len(items)
        asked = [i for i, item in enumerate(items) if self._judge.has_second_opinion(item.task)]
        jobs = [Job("second", items[i]) for i in asked]
        if jobs:
            with self._lock:
                for number, graded in self.pool.run(jobs, self._modules({job.answer.task for job in jobs})):
                    opinions[asked[number]] = None if graded.verdict in UNDECIDED else graded
        return opinions

    def _modules(self, tasks: set[str]) -> list[str]:
        return sorted({module for task in tasks for module in self._judge.verifier(task).preload})

    def _fill(self, results: list[Graded | None], waiting: Mapping[_Key, list[int]]) -> list[Graded]:
        """Give equal answers the verdict of the one that was judged, and remember it."""
        for key, indices in waiting.items():
            graded = results[indices[0]]
            assert graded is not None
            for index in indices[1:]:
                results[index] = graded
            if graded.verdict not in UNDECIDED and len(key[3]) <= _REMEMBERED_CHARS:
                self._known[key] = graded
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return [graded for graded in results if graded is not None]


def _key(item: Answer, text: str) -> _Key:
    return (item.task, item.reference, item.choices, text, item.source)


def _without_text(item: Answer) -> Answer:
    return item._replace(text="")
