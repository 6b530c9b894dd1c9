"""Token counts of the samples of one answer."""

import httpx
from hypothesis import given
from hypothesis import strategies as st

from advdistill_core.teachers.completion import choices


@given(st.data())
def test_a_usage_of_several_samples_is_shared_within_the_limit(data: st.DataObject) -> None:
    """Cut samples have the limit, the others 1 to it; the sum is the endpoint's."""
    longest = data.draw(st.integers(1, 30))
    true = data.draw(st.lists(st.integers(1, longest), min_size=1, max_size=8))
    cut = [count == longest and data.draw(st.booleans()) for count in true]
    texts = ["x" * data.draw(st.integers(0, 200)) for _ in true]
    found = shares(sum(true), texts, cut, longest)
    assert sum(found) == sum(true)
    assert all(1 <= count <= longest for count in found)
    assert all(count == longest for count, is_cut in zip(found, cut, strict=True) if is_cut)


def test_a_usage_that_does_not_fit_is_shared_by_length() -> None:
    assert shares(90, ["aaa", "aaa", "aaaaaaaa"], [True, False, False], 20) == [21, 21, 48]
    assert shares(3, ["aaa", "aaa", "aaa"], [True, False, False], 20) == [1, 1, 1]


def shares(total: int, texts: list[str], cut: list[bool], longest: int) -> list[int]:
    listed = [
        {"message": {"content": text}, "finish_reason": "length" if is_cut else "stop"}
        for text, is_cut in zip(texts, cut, strict=True)
    ]
    answer = httpx.Response(200, json={"choices": listed, "usage": {"completion_tokens": total}})
    return [choice.num_tokens for choice in choices(answer, len(texts), longest)]
