"""Parts of the teacher's section: prices, budget, examples, further teachers."""

from typing import Literal

from pydantic import model_validator

from advdistill_core.config.base import Section, setting


class PricesConfig(Section):
    """What tokens cost, in any one currency; 0 for a model of one's own."""

    prompt: float = setting(
        0.0, "Prompt tokens", "Price of a million prompt tokens.", affects_result=False, ge=0
    )
    completion: float = setting(
        0.0, "Generated tokens", "Price of a million generated tokens.", affects_result=False, ge=0
    )


class BudgetConfig(Section):
    """What one generation may spend, all its attempts and workers together; 0 is no limit."""

    tokens: int = setting(0, "Tokens", "Most generated tokens.", affects_result=False, ge=0)
    money: float = setting(
        0.0, "Money", "Most money, in the currency of the prices.", affects_result=False, ge=0
    )


class Example(Section):
    """A question with an answer that shows the teacher what is wanted."""

    question: str = setting(..., "Question", "The user's message.", min_length=1)
    answer: str = setting(..., "Answer", "The assistant's message.", min_length=1)


class MixtureTeacher(Section):
    """A further teacher that adds responses to every prompt's group.

    What is not here (length limit, number type, retries, ...) is as for the first teacher.
    """

    backend: Literal["transformers", "vllm", "openai"] = setting(
        "transformers", "Backend", "What runs it; see the first teacher."
    )
    model: str = setting(..., "Model", "As for the first teacher.", min_length=1)
    k: int = setting(4, "Responses per prompt", "Its share of each prompt's group.", ge=1, le=1024)
    temperature: float = setting(0.8, "Temperature", "Sampling temperature; 0 is greedy.", ge=0, le=5)
    top_p: float = setting(1.0, "Top p", "Nucleus sampling: smallest set with this probability.", gt=0, le=1)
    base_url: str = setting("", "Address", "openai: address of its endpoint.", affects_result=False)
    api_key_env: str = setting(
        "",
        "Key variable",
        "openai: environment variable that holds its key; empty for an endpoint without.",
        affects_result=False,
        pattern=r"^[A-Za-z0-9_]*$",
    )
    prices: PricesConfig = setting(PricesConfig, "Prices", "What its tokens cost.", affects_result=False)

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "MixtureTeacher":
        if self.backend == "openai" and not self.base_url:
            raise ValueError("base_url is missing: backend openai needs the address of an endpoint")
        if self.backend != "openai" and (self.base_url or self.api_key_env):
            raise ValueError(f"base_url and api_key_env would be ignored: backend is {self.backend}")
        return self
