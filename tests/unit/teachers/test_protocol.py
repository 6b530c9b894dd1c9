"""Seeds and request hashes: functions of nothing but their arguments, for good."""

from dataclasses import replace

from advdistill_core.teachers import Sampling, request_hash, response_seed


def test_seeds_are_the_same_everywhere() -> None:
    # By hand: first 8 bytes of sha256('[0,"q1",0]'), without the lowest bit.
    assert response_seed(0, "q1", 0) == 0x948579045AD1A60


def test_seeds_differ_and_fit_a_column() -> None:
    seeds = {response_seed(s, f"q{i}", j) for s in range(3) for i in range(50) for j in range(8)}
    assert len(seeds) == 3 * 50 * 8
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert response_seed(1, "1", 11) != response_seed(1, "11", 1)


def test_the_request_hash_covers_all_that_decides_a_response() -> None:
    sampling = Sampling()
    base = request_hash("model", "prompt", sampling)
    changes = [
        request_hash("model2", "prompt", sampling),
        request_hash("model", "prompt2", sampling),
        request_hash("model", "prompt", replace(sampling, temperature=0.7)),
        request_hash("model", "prompt", replace(sampling, top_p=0.9)),
        request_hash("model", "prompt", replace(sampling, top_k=5)),
        request_hash("model", "prompt", replace(sampling, max_new_tokens=10)),
    ]
    assert len({base, *changes}) == 7
    assert base == request_hash("model", "prompt", Sampling())
