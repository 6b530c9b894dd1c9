"""A teacher on a vLLM server of its own, which lives as long as the stage.

With a seed per request (GPU builds) a response is the same again as far as the arithmetic
of its batch is. The CPU build has one random stream for its engine, seeded with
`teacher.seed`: what a request draws from it depends on all requests before, so a second
run gives other responses at a temperature above 0, and the seed column says NO_SEED.
"""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from advdistill_core.config import TeacherConfig
from advdistill_core.teachers import vllm_command
from advdistill_core.teachers.completion import Choice, Retriable
from advdistill_core.teachers.endpoint import Endpoint
from advdistill_core.teachers.gate import Gate
from advdistill_core.teachers.protocol import Tell, say_nothing
from advdistill_core.teachers.vllm_server import Server

_POLL_S = 0.1
_NOTICE_S = 5.0  # how long a death may take to be seen after a request failed


class Vllm(Endpoint):
    """Starts the server; see `endpoint.Endpoint` for the rest.

    Args:
        folder: where the server's log is kept.
        tell: told how the start gets on.

    Raises:
        InputError: there is no vLLM, or a setting cannot be used.
        StageError: the server did not start.
    """

    def __init__(self, config: TeacherConfig, folder: Path, tell: Tell = say_nothing) -> None:
        vllm_command.precheck(config)
        build = vllm_command.find(config)
        self._on_cpu = build.on_cpu
        self.server = Server(
            lambda port: vllm_command.arguments(config, build, port),
            folder,
            config.vllm.start_timeout_s,
            config.vllm.max_restarts,
        )
        self.server.start(tell)
        self._deaths_told = 0
        super().__init__(config, tell)

    def _connect(self) -> None:
        self._base, self._key, self._local = self.server.base_url, self.server.key, True
        self._model = vllm_command.LORA if self.config.vllm.lora else self.config.model
        self._sends_seeds = not self._on_cpu
        self._extra = {"return_token_ids": True}  # exact counts, sample by sample

    def close(self) -> None:
        """End the server."""
        self.server.close()

    async def _once(self, client: httpx.AsyncClient, gate: Gate, body: Mapping[str, Any]) -> list[Choice]:
        """One request; a failure that a death explains is no attempt of this request."""
        while True:
            life = await self._running()
            self._base = self.server.base_url
            try:
                return await super()._once(client, gate, body)
            except Retriable:
                if not await self._died(life):
                    raise

    async def _running(self) -> int:
        while (life := self.server.check()) is None:
            if self._deaths_told < self.server.num_restarts:
                self._deaths_told = self.server.num_restarts
                self._arrived.put(f"vLLM: {self.server.remark}, its log is {self.server.log}")
            await asyncio.sleep(_POLL_S)
        return life

    async def _died(self, life: int) -> bool:
        deadline = time.monotonic() + _NOTICE_S
        while time.monotonic() < deadline:
            if self.server.check() != life:
                return True
            await asyncio.sleep(_POLL_S)
        return False
