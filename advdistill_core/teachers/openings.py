"""Opening the teachers of a generation: one at a time, and only when something is missing."""

import fcntl
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from advdistill_core import models
from advdistill_core.config import TeacherConfig
from advdistill_core.models.chat import render
from advdistill_core.store import Store, canonical_json
from advdistill_core.teachers.backends import open_teacher
from advdistill_core.teachers.members import Member
from advdistill_core.teachers.protocol import Teacher, Tell, say_nothing

Renderer = Callable[[Sequence[Mapping[str, str]]], str]


class Openings:
    """Holds the open teacher of a process.

    Args:
        folder: the generation's artifact, relative to the store's root.
        tell: told what is waited for.
    """

    def __init__(self, config: TeacherConfig, store: Store, folder: str, tell: Tell = say_nothing) -> None:
        self.config, self.store, self.folder, self.tell = config, store, folder, tell
        self._open: tuple[str, Teacher] | None = None
        self._renderers: dict[str, Renderer] = {}
        self._address: int | None = None

    def teacher(self, member: Member) -> Teacher:
        """The teacher of a member; another one that was open is closed."""
        if self._open and self._open[0] == member.tag:
            return self._open[1]
        self.close()
        logs = self.store.files.local_folder(f"logs/{self.folder}")
        teacher = open_teacher(self._settings(member), logs, self.tell)
        self._open = (member.tag, teacher)
        return teacher

    def renderer(self, member: Member) -> Renderer:
        """What makes a conversation the text of a request; it loads no model."""
        if member.tag not in self._renderers:
            self._renderers[member.tag] = render_for(member.config)
        return self._renderers[member.tag]

    def trouble(self) -> str:
        """Why a request failed last, as far as the open teacher tells."""
        return getattr(self._open[1], "trouble", "") if self._open else ""

    def close(self) -> None:
        """Give back what the open teacher holds."""
        if self._open:
            self._open[1].close()
            self._open = None
        if self._address is not None:
            os.close(self._address)
            self._address = None

    def _settings(self, member: Member) -> TeacherConfig:
        """The member's settings for this process."""
        config = member.config
        if config.backend == "transformers":
            # A batch larger than a shard would let a kill lose more than a shard.
            return config.model_copy(
                update={"batch_size": min(config.batch_size, config.shard_size * config.k)}
            )
        if config.more_base_urls:
            return config.model_copy(update={"base_url": self._free_address(config)})
        return config

    def _free_address(self, config: TeacherConfig) -> str:
        """An endpoint that no other worker of this generation uses; the first if all are used."""
        locks = self.store.files.local_folder(".locks")
        for url in (config.base_url, *config.more_base_urls):
            name = hashlib.sha256(f"{self.folder} {url}".encode()).hexdigest()[:24]
            descriptor = os.open(
                locks / f"endpoint-{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
            )
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            self._address = descriptor  # held until the teacher is closed
            return url
        return config.base_url


def render_for(config: TeacherConfig) -> Renderer:
    """What makes a conversation the text of a request to a teacher; it loads no model."""
    if config.backend == "transformers":
        return partial(render, models.load_tokenizer(config.model, config.trust_remote_code))
    return _as_json  # the endpoint has the template


def _as_json(messages: Sequence[Mapping[str, str]]) -> str:
    return canonical_json([dict(message) for message in messages])
