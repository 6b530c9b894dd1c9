"""A model behind an OpenAI-compatible endpoint, asked whether an answer equals the reference.

Only for the audit: what a model says never becomes a reward.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from advdistill_core.errors import StageError
from advdistill_core.rewards.types import Answer

KEY_VARIABLE = "ADVDISTILL_JUDGE_API_KEY"
_CONCURRENCY = 8
_TIMEOUT_S = 60.0
_RETRIES = 2
_TAIL_CHARS = 4000
_PROMPT = (
    "Does the final answer of this response equal the reference answer? Judge only whether both mean "
    "the same, not the way to it. Reply with one word, yes or no.\n\nReference answer:\n{reference}\n\n"
    "Response (its end):\n{text}"
)


class JudgeModel:
    """Callable as the audit's `judge_model`.

    Args:
        url: base of the endpoint, e.g. `http://localhost:8000/v1`.
        model: its name there. The key is read from ADVDISTILL_JUDGE_API_KEY, if set.
    """

    def __init__(self, url: str, model: str) -> None:
        self.url, self.model = url.rstrip("/"), model

    def __call__(self, answers: Sequence[Answer]) -> list[str]:
        """For each answer `correct`, `wrong`, or "" where the model said neither.

        Raises:
            StageError: the endpoint cannot be reached or refuses.
        """
        with ThreadPoolExecutor(_CONCURRENCY) as threads:
            return list(threads.map(self._ask, answers))

    def _ask(self, answer: Answer) -> str:
        import httpx

        prompt = _PROMPT.format(reference=answer.reference, text=answer.text[-_TAIL_CHARS:])
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": 8,
        }
        key = os.environ.get(KEY_VARIABLE)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            with httpx.Client(
                transport=httpx.HTTPTransport(retries=_RETRIES), timeout=_TIMEOUT_S, headers=headers
            ) as client:
                reply = client.post(f"{self.url}/chat/completions", json=body)
                reply.raise_for_status()
                said = str(reply.json()["choices"][0]["message"]["content"] or "").strip().casefold()
        except (httpx.HTTPError, KeyError, IndexError, ValueError) as error:
            raise StageError(f"judge model at {self.url}: {type(error).__name__}: {error}") from error
        return "correct" if said.startswith("yes") else "wrong" if said.startswith("no") else ""
