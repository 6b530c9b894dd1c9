"""A tiny model, on one thread: with more, small models only wait for each other."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from advdistill_core import models


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
