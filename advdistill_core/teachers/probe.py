"""Whether an endpoint answers, takes the key and knows the model, asked before a run begins.

What may pass (a busy or restarting server, a slow one) is no reason to refuse a run.
"""

import difflib
import os
from typing import Any, NoReturn

import httpx

from advdistill_core.config import TeacherConfig
from advdistill_core.errors import InputError

_CONNECT_S = 5.0
_ANSWER_S = 30.0
_FIRST_BODY_CHARACTERS = 80


def probe(config: TeacherConfig, section: str = "teacher") -> None:
    """Ask for the list of models; where the model is not on it, for one token of an answer.

    Args:
        section: the setting that holds `config`, for messages.

    Raises:
        InputError: nothing listens there, the key is refused, the model is unknown, or what
            answers is no OpenAI-compatible endpoint.
    """
    _Probe(config, section).run()


class _Probe:
    def __init__(self, config: TeacherConfig, section: str) -> None:
        self.config, self.section = config, section
        self.base = config.base_url.rstrip("/")
        key = os.environ.get(config.api_key_env, "") if config.api_key_env else ""
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}

    def run(self) -> None:
        timeout = httpx.Timeout(_ANSWER_S, connect=_CONNECT_S)
        try:
            with httpx.Client(headers=self.headers, timeout=timeout) as client:
                known = self._models(client)
                if self.config.model not in known:
                    self._one_token(client, known)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            raise InputError(
                f"{self.section}.base_url",
                f"{self.base}, where nothing answers ({error})",
                "an endpoint that is running",
                "Start it, or correct the address.",
            ) from error
        except httpx.TransportError:
            return  # it listens; the generation has its own patience

    def _models(self, client: httpx.Client) -> list[str]:
        answer = client.get(f"{self.base}/models")
        if answer.status_code in (401, 403) or answer.is_redirect:
            self._refuse(answer)
        listed = _json(answer).get("data")
        entries = listed if isinstance(listed, list) else []
        return [str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry]

    def _one_token(self, client: httpx.Client, known: list[str]) -> None:
        body = {
            "model": self.config.model,
            "messages": [{"role": "user", "content": "1"}],
            "max_tokens": 1,
        }
        answer = client.post(f"{self.base}/chat/completions", json=body)
        if answer.status_code == 404 and known:
            near = difflib.get_close_matches(self.config.model, known, n=1, cutoff=0.4)
            remedy = f"Did you mean {near[0]}?" if near else f"It has {', '.join(known[:5])}."
            raise InputError(
                f"{self.section}.model", self.config.model, f"a model that {self.base} has", remedy
            )
        if answer.status_code in (401, 402, 403, 404, 405) or answer.is_redirect:
            self._refuse(answer)
        if answer.is_success and "choices" not in _json(answer):
            raise InputError(
                f"{self.section}.base_url",
                f"{self.base}, which answers {answer.text[:_FIRST_BODY_CHARACTERS]!r}",
                "an endpoint that answers in JSON with choices",
                "Give the address up to /v1.",
            )

    def _refuse(self, answer: httpx.Response) -> NoReturn:
        status, name = answer.status_code, self.config.api_key_env
        if status in (401, 402, 403):
            got = f"the key in {name}" if name else "no key"
            raise InputError(
                f"{self.section}.api_key_env",
                f"{got}, and status {status} from {self.base}",
                "a key that the endpoint accepts",
                "Put it into an environment variable and give that one's name.",
            )
        raise InputError(
            f"{self.section}.base_url",
            f"status {status} from {answer.request.url}",
            f"an endpoint that has /chat/completions and knows {self.config.model}",
            "Give the address up to /v1, and the model by the endpoint's name for it.",
        )


def _json(answer: httpx.Response) -> dict[str, Any]:
    """The answer's object; empty where it is none."""
    if not answer.is_success:
        return {}
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
