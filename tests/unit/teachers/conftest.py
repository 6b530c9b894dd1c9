"""A tiny model, on one thread: with more, small models only wait for each other."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from endpoint_fixture import KEY, Behaviour, Server

from advdistill_core import models
from advdistill_core.teachers import endpoint


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model() -> Any:
    return models.load_model("tiny-random-llama", device="cpu")


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return models.load_tokenizer("tiny-random-llama")


@pytest.fixture
def serve() -> Iterator[Callable[[Behaviour], Server]]:
    running: list[Server] = []

    def start(behaviour: Behaviour) -> Server:
        running.append(Server(behaviour))
        return running[-1]

    yield start
    for server in running:
        server.http.shutdown()
        server.http.server_close()


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setenv("TEST_KEY", KEY)
