"""Sampling from a tiny model: equal to the library's own, whatever shares the batch."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from advdistill_core.errors import InputError
from advdistill_core.models.chat import encode, render
from advdistill_core.teachers import Response, Sampling, response_seed
from advdistill_core.teachers.local import Engine, sample
from advdistill_core.teachers.protocol import Request


def prompts_of(tokenizer: Any, count: int) -> list[str]:
    """Prompts of different lengths."""
    return [
        render(tokenizer, [{"role": "user", "content": "7 + " * (i % 5) + f"{i} ="}]) for i in range(count)
    ]


def seeds_of(count: int, k: int) -> list[list[int]]:
    return [[response_seed(3, f"q{i}", j) for j in range(k)] for i in range(count)]


def by_key(responses: Sequence[Response]) -> dict[tuple[int, int], Response]:
    found = {(r.index, r.sample_id): r for r in responses}
    assert len(found) == len(responses), "a sample came twice"
    return found


def gpt2(tokenizer: Any) -> Any:
    """Learned positions, no grouped heads: what a Llama hides."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=128, initializer_range=0.4,
        bos_token_id=2, eos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def mistral(tokenizer: Any) -> Any:
    """A window of 12 tokens, shorter than the prompts."""
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=12, initializer_range=0.4,
        max_position_embeddings=256, bos_token_id=2, eos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    return MistralForCausalLM(config).eval()


OTHERS = {"gpt2": gpt2, "mistral": mistral}


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
def test_greedy_equals_the_librarys_generate(kind: str, model: Any, tokenizer: Any) -> None:
    tested = OTHERS[kind](tokenizer) if kind in OTHERS else model
    prompts = prompts_of(tokenizer, 11)
    found = by_key(list(sample(tested, tokenizer, prompts, seeds=range(11), max_new_tokens=20, batch_size=4)))
    for i, prompt in enumerate(prompts):
        ids = torch.tensor(encode(tokenizer, [prompt]))
        wanted = tested.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False, pad_token_id=0
        )[0, ids.shape[1] :]
        assert found[i, 0].text == tokenizer.decode(wanted, skip_special_tokens=True)
        assert found[i, 0].num_tokens == len(wanted)
        assert found[i, 0].finish_reason == ("stop" if wanted[-1] == 3 else "length")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_response_does_not_depend_on_the_batch(kind: str, model: Any, tokenizer: Any) -> None:
    tested = OTHERS[kind](tokenizer) if kind in OTHERS else model
    prompts, seeds = prompts_of(tokenizer, 7), seeds_of(7, 5)
    settings: dict[str, Any] = {"k": 5, "temperature": 0.9, "top_p": 0.95, "max_new_tokens": 20}
    alone = by_key(list(sample(tested, tokenizer, prompts, seeds=seeds, batch_size=1, **settings)))
    assert {r.finish_reason for r in alone.values()} == {"stop", "length"}
    for batch_size in (3, 8, 64):  # groups that are split, joined and refilled
        batched = sample(tested, tokenizer, prompts, seeds=seeds, batch_size=batch_size, **settings)
        assert by_key(list(batched)) == alone
    few = sample(tested, tokenizer, prompts[4:6], seeds=seeds[4:6], batch_size=8, **settings)
    assert {k[1]: r.text for k, r in by_key(list(few)).items() if k[0] == 0} == {
        j: alone[4, j].text for j in range(5)
    }


def test_samples_of_a_prompt_differ_and_repeat_with_their_seed(model: Any, tokenizer: Any) -> None:
    prompt = prompts_of(tokenizer, 1)
    first = by_key(list(sample(model, tokenizer, prompt, seeds=seeds_of(1, 8), k=8, temperature=1.0)))
    again = by_key(list(sample(model, tokenizer, prompt, seeds=seeds_of(1, 8), k=8, temperature=1.0)))
    assert first == again
    assert len({r.text for r in first.values()}) == 8


def test_the_first_two_tokens_follow_the_models_probabilities(model: Any, tokenizer: Any) -> None:
    """Against softmax of plain forward passes; the second token tests the cache."""
    prompt, num, temperature = prompts_of(tokenizer, 1)[0], 3000, 0.7
    responses = sample(
        model, tokenizer, [prompt], seeds=seeds_of(1, num), k=num, temperature=temperature,
        max_new_tokens=2, batch_size=512,
    )  # fmt: skip
    drawn = Counter(tuple(encode(tokenizer, [r.text])[0]) for r in responses)
    assert sum(drawn.values()) == num

    def probabilities(extra: list[int]) -> torch.Tensor:
        ids = encode(tokenizer, [prompt])[0] + extra
        with torch.no_grad():
            return torch.softmax(model(torch.tensor([ids])).logits[0, -1].double() / temperature, -1)

    first = probabilities([])
    assert_fits(Counter(t[0] for t in drawn.elements() if t), first)
    likeliest = int(first.argmax())
    second = Counter(t[1] for t in drawn.elements() if len(t) == 2 and t[0] == likeliest)
    assert second.total() > 200
    assert_fits(second, probabilities([likeliest]))


def assert_fits(drawn: Counter[int], probabilities: torch.Tensor) -> None:
    """Chi-square over the tokens expected at least 5 times, the rest taken together."""
    probabilities = probabilities.clone()
    probabilities[:4] = 0  # special tokens do not appear in a text
    probabilities /= probabilities.sum()
    num = drawn.total()
    often = [i for i, p in enumerate(probabilities.tolist()) if num * p >= 5]
    cells = [(drawn[i], num * float(probabilities[i])) for i in often]
    rest = num - sum(c for c, _ in cells), num - sum(e for _, e in cells)
    cells += [rest] if rest[1] > 5 else []
    chi2 = sum((count - wanted) ** 2 / wanted for count, wanted in cells)
    degrees = len(cells) - 1
    assert degrees >= 3
    assert chi2 < degrees + 4 * (2 * degrees) ** 0.5 + 4, (chi2, degrees)  # about 0.9999


def test_length_limits_and_prompts_without_room(model: Any, tokenizer: Any) -> None:
    long = "9" * 2000  # beyond the model's 1024 positions
    near = "9" * 1020
    responses = by_key(
        list(sample(model, tokenizer, [long, near, "1 + 1 ="], seeds=[1, 2, 3], max_new_tokens=16))
    )
    assert (responses[0, 0].finish_reason, responses[0, 0].num_tokens, responses[0, 0].text) == (
        "error",
        0,
        "",
    )
    assert responses[1, 0].num_tokens <= 4
    assert responses[2, 0].num_tokens <= 16
    assert "<|im_end|>" not in responses[2, 0].text


def test_tokens_are_told_while_they_come(model: Any, tokenizer: Any) -> None:
    told: list[int] = []
    responses = list(
        sample(model, tokenizer, prompts_of(tokenizer, 6), seeds=range(6), max_new_tokens=9, batch_size=2,
               on_progress=told.append)
    )  # fmt: skip
    assert told == sorted(told)
    assert len(told) > 10
    assert told[-1] == sum(r.num_tokens for r in responses)


def test_a_wrong_number_of_seeds_is_refused(model: Any, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="seeds"):
        sample(model, tokenizer, ["a", "b"], seeds=[[1, 2], [3]], k=2)


def test_only_the_asked_samples_are_made(model: Any, tokenizer: Any) -> None:
    """The samples 2 and 5 alone are what they are within the whole group."""
    prompt = prompts_of(tokenizer, 1)[0]
    seeds = seeds_of(1, 6)[0]
    whole = by_key(
        list(sample(model, tokenizer, [prompt], seeds=[seeds], k=6, temperature=1.0, max_new_tokens=8))
    )
    request = Request(0, prompt, ((2, seeds[2]), (5, seeds[5])))
    some = by_key(list(Engine(model, tokenizer, 4).generate([request], Sampling(1.0, max_new_tokens=8))))
    assert some == {key: whole[key] for key in [(0, 2), (0, 5)]}


def test_nothing_asked_nothing_given(model: Any, tokenizer: Any) -> None:
    assert list(Engine(model, tokenizer, 4).generate([], Sampling())) == []


def test_a_model_with_recurrent_state_is_refused(tokenizer: Any) -> None:
    config = MambaConfig(vocab_size=len(tokenizer), hidden_size=16, state_size=4, num_hidden_layers=1)
    with pytest.raises(InputError, match="MambaForCausalLM"):
        Engine(MambaForCausalLM(config), tokenizer, 4)


def test_the_model_is_left_as_it_was(model: Any, tokenizer: Any) -> None:
    responses: Any = sample(model, tokenizer, ["1 + 1 ="], seeds=[[1, 2]], k=2, temperature=2.0)
    next(responses)
    assert model.config._attn_implementation != "sdpa"  # grouped while it runs
    responses.close()
    assert model.config._attn_implementation == "sdpa"
