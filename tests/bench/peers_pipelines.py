"""One generation of short answers in distilabel or curator, as their users write it.

    .venv-peers/data/bin/python tests/bench/peers_pipelines.py distilabel URL FOLDER NUM

Runs in the peers' environment and imports nothing of ours. The last line of stdout is the
number of rows in the result and how many of them hold the right answer.
"""

import json
import os
import sys

MODEL = "gpt-4o-mini"  # curator refuses names that it does not know the price of


def questions(num: int) -> list[str]:
    return [f"What is {i} + {i}?" for i in range(num)]


def answer(question: str) -> str:
    """What the endpoint says: the same to the same question, in every run."""
    return f"The answer to <{question}> is known."


def distilabel(url: str, folder: str, num: int) -> list[tuple[str, str]]:
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    with Pipeline(name="bench", cache_dir=folder) as pipeline:
        load = LoadDataFromDicts(data=[{"instruction": question} for question in questions(num)])
        generate = TextGeneration(llm=OpenAILLM(model=MODEL, base_url=url, api_key="none"))
        load >> generate
    rows = pipeline.run(use_cache=True)["default"]["train"]
    return [(row["instruction"], row["generation"]) for row in rows]


def curator(url: str, folder: str, num: int) -> list[tuple[str, str]]:
    os.environ |= {"TELEMETRY_ENABLED": "false", "OPENAI_API_KEY": "none"}
    import tiktoken
    from bespokelabs.curator import LLM

    # It counts tokens for its limits with a vocabulary that tiktoken downloads; bytes do, too.
    single = tiktoken.Encoding("bytes", pat_str=".", mergeable_ranks={bytes([i]): i for i in range(256)},
                               special_tokens={})  # fmt: skip
    tiktoken.encoding_for_model = tiktoken.get_encoding = lambda *_: single

    class Answerer(LLM):
        def prompt(self, row: dict[str, str]) -> str:
            return row["question"]

        def parse(self, row: dict[str, str], response: str) -> dict[str, str]:
            return {"question": row["question"], "answer": response}

    limits = {"max_requests_per_minute": 10**6, "max_tokens_per_minute": 10**9}
    llm = Answerer(model_name=MODEL, backend="openai", backend_params={"base_url": url, **limits})
    rows = llm([{"question": question} for question in questions(num)], working_dir=folder).dataset
    return [(row["question"], row["answer"]) for row in rows]


def main() -> None:
    name, url, folder, num = sys.argv[1:]
    rows = {"distilabel": distilabel, "curator": curator}[name](url, folder, int(num))
    right = {question for question, text in rows if text == answer(question)}
    print(json.dumps({"rows": len(rows), "right": len(right & set(questions(int(num))))}))


if __name__ == "__main__":
    main()
