"""Training speed beside plain Trainer and TRL SFTTrainer: same model, rows and loss.

    python tests/bench/train_peers.py DATA_FOLDER [--groups 4] [--steps 3] [--out FILE]

needs `trl` in the environment. Each contender is a process of its own that takes whole
optimizer steps over all rows, so every one's loss must be the same number. Groups are of
eight responses to one prompt, weights are uniform (TRL knows none), the loss is the token
mean over completions. Contenders take turns for several rounds. Figures are completion
tokens per second of processor time in the best step of all rounds with one thread, which
other work on the machine disturbs least, and in brackets the ratio in the round that was
worst and best for us; with more threads, read the wall time. Peak memory is what the
process grew by from before its first step.

The default model is a random Llama whose vocabulary is folded to 8192, so that its output layer
has the share of the work that it has in SmolLM2-135M (a quarter) while a step takes
seconds. Texts and lengths are real; SmolLM2's tokenizer cuts them.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rows import Row, tell

K = 8
VOCABULARY = 8192
END = 2
SMALL = "random-8m"
PEERS = ("ours", "plain Trainer", "TRL padded", "TRL packed")
TO_REACH = {"TRL padded": 2.5, "TRL packed": 1.5, "plain Trainer": 2.5}
SIZES = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 8}

Rows = list[tuple[list[int], list[list[int]]]]  # prompt, completions


def read(path: Path) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def texts(data: Path, kind: str, num_groups: int) -> list[tuple[str, list[str]]]:
    """Prompts with eight responses.

    math: eight samples of one teacher for one problem, as they come. gsm8k and mmlu_pro:
    real prompts and real outputs, but of several models (and, to make eight, of the next
    question), so their responses share no beginnings.
    """
    if kind == "math":
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in read(data / "outputs/math_qwen25_samples.jsonl"):
            groups.setdefault(row["question_id"], []).append(row)
        whole = [g for g in groups.values() if len(g) == K][:num_groups]
        return [(g[0]["question"], [row["output"] for row in g]) for g in whole]
    if kind == "gsm8k":
        questions = {row["id"]: row["question"] for row in read(data / "eval/gsm8k_test.jsonl")}
        outputs = read(data / "outputs/gsm8k_gpt3_solutions.jsonl")
    else:
        rows = read(data / "eval/mmlu_pro_test.jsonl")
        questions = {
            row["id"]: row["question"]
            + "".join(f"\n{chr(65 + i)}. {c}" for i, c in enumerate(row["choices"]))
            for row in rows
        }
        outputs = read(data / "outputs/mmlu_pro_outputs_sample.jsonl")
    found = []
    for i in range(num_groups):
        part = outputs[i * K : (i + 1) * K]
        found.append((questions[part[0]["question_id"]], [row["output"] for row in part]))
    return found


def tokenized(data: Path, kind: str, num_groups: int, model: str) -> Rows:
    from advdistill_core import models
    from advdistill_core.models import chat

    tokenizer = models.load_tokenizer("smollm2-135m-instruct")

    def fold(ids: list[int]) -> list[int]:
        if model != SMALL:
            return ids
        return [3 + i % (VOCABULARY - 3) for i in ids]

    found = []
    for question, responses in texts(data, kind, num_groups):
        text = chat.render(tokenizer, [{"role": "user", "content": question}])
        prompt = fold(chat.encode(tokenizer, [text])[0])
        found.append((prompt, [[*fold(tokenizer(r)["input_ids"][:600]), END] for r in responses]))
    return found


def build_model(name: str) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    if name != SMALL:
        from advdistill_core import models

        return models.load_model(name, dtype="float32", device="cpu")
    torch.manual_seed(0)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048}
    special = {"bos_token_id": 1, "eos_token_id": END, "pad_token_id": 0}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=VOCABULARY, tie_word_embeddings=True, **SIZES, **heads, **special)
    )


class Clock:
    """Wall and processor seconds of each optimizer step."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.start()

    def start(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def step(self) -> None:
        self.wall.append(time.perf_counter() - self._wall)
        self.cpu.append(time.process_time() - self._cpu)
        self.start()


def run_ours(model: Any, rows: Rows, steps: int, clock: Clock, folder: str) -> list[float]:
    from advdistill_core.config import StudentConfig
    from advdistill_core.training.fit import fit
    from advdistill_core.training.rows import Group, Row

    groups = [
        Group(f"{i:04d}", tuple(p), tuple(Row(tuple(c), 1 / K) for c in cs)) for i, (p, cs) in enumerate(rows)
    ]
    config = StudentConfig(
        learning_rate=1e-4, epochs=steps, groups_per_step=len(groups), lr_schedule="constant",
        warmup_frac=0.0, batch_tokens=2048, checkpoint_every_steps=1000, device="cpu",
    )  # fmt: skip
    clock.start()
    return [entry["loss"] for entry in fit(model, groups, config, Path(folder), lambda _: clock.step()).log]


def arguments(kind: Any, steps: int, folder: str, **more: Any) -> Any:
    return kind(
        output_dir=folder, max_steps=steps, learning_rate=1e-4, lr_scheduler_type="constant", use_cpu=True,
        logging_steps=1, save_strategy="no", report_to=[], disable_tqdm=True, bf16=False, weight_decay=0.0,
        max_grad_norm=1.0, dataloader_pin_memory=False, **more,
    )  # fmt: skip


def run_peer(name: str, model: Any, rows: Rows, steps: int, clock: Clock, folder: str) -> list[float]:
    import torch
    from datasets import Dataset
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Tick(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.start()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.step()

    flat = [(p, c) for p, cs in rows for c in cs]
    if name == "plain Trainer":
        items = [{"input_ids": p + c, "labels": [-100] * len(p) + c} for p, c in flat]

        def collate(batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
            width = max(len(b["input_ids"]) for b in batch)
            filled = {"input_ids": 0, "labels": -100}
            out = {
                key: torch.tensor([b[key] + [pad] * (width - len(b[key])) for b in batch])
                for key, pad in filled.items()
            }
            lengths = torch.tensor([len(b["input_ids"]) for b in batch])
            out["attention_mask"] = (torch.arange(width) < lengths[:, None]).long()
            return out

        accumulate = {"per_device_train_batch_size": K, "gradient_accumulation_steps": len(rows)}
        settings = arguments(
            TrainingArguments, steps, folder, remove_unused_columns=False,
            train_sampling_strategy="sequential", **accumulate,
        )  # fmt: skip
        trainer: Any = Trainer(
            model=model, args=settings, train_dataset=items, data_collator=collate, callbacks=[Tick()]
        )
    else:
        from trl import SFTConfig, SFTTrainer

        from advdistill_core import models

        packed = name == "TRL packed"
        data = Dataset.from_list(
            [{"input_ids": p + c, "completion_mask": [0] * len(p) + [1] * len(c)} for p, c in flat]
        )
        more: dict[str, Any] = {"per_device_train_batch_size": K, "gradient_accumulation_steps": len(rows)}
        if packed:
            more = {"packing": True, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 10**6}
        settings = arguments(
            SFTConfig, steps, folder, max_length=2048, completion_only_loss=True,
            gradient_checkpointing=False, train_sampling_strategy="sequential", **more,
        )  # fmt: skip
        trainer = SFTTrainer(
            model=model, args=settings, train_dataset=data,
            processing_class=models.load_tokenizer("smollm2-135m-instruct"), callbacks=[Tick()],
        )  # fmt: skip
        if packed:  # one step over all packs, however many there came to be
            trainer.args.gradient_accumulation_steps = len(trainer.train_dataset)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def contend(name: str, kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one contender in this process."""
    import torch

    torch.set_num_threads(options.threads)
    steps = options.steps
    rows = tokenized(options.data, kind, options.groups, options.model)
    clock = Clock()
    model = build_model(options.model)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        if name == "ours":
            losses = run_ours(model, rows, steps, clock, folder)
        else:
            losses = run_peer(name, model, rows, steps, clock, folder)
    tokens = sum(len(c) for _, cs in rows for c in cs)
    return {
        "tokens": tokens,
        "prompt": sum(len(p) for p, _ in rows) / len(rows),
        "completion": tokens / len(rows) / K,
        "wall_s": min(clock.wall[1:]),  # the first step warms up
        "cpu_s": min(clock.cpu[1:]),
        "peak_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        "losses": losses,
    }


def report(found: dict[str, dict[str, list[dict[str, Any]]]], command: str) -> str:
    """The results as Markdown."""
    lines = [
        "# Training beside TRL and plain Trainer", "",
        f"`{command}` on a machine of {os.cpu_count()} CPU cores; what is measured is in its head.", "",
    ]  # fmt: skip
    for kind, results in found.items():
        ours = results["ours"]
        lines += [
            f"## {kind}: prompts of {ours[0]['prompt']:.0f} tokens, responses of {ours[0]['completion']:.0f}",
            "",
            "| trainer | completion tokens per CPU second | ours is faster | in wall time | peak MB | loss |",
            "|---|---|---|---|---|---|",
        ]
        for name, rounds in results.items():
            rates = [r["cpu_s"] / o["cpu_s"] for r, o in zip(rounds, ours, strict=True)]
            faster = best(rounds, "cpu_s") / best(ours, "cpu_s")
            lines.append(
                f"| {name} | {rounds[0]['tokens'] / best(rounds, 'cpu_s'):.0f} | "
                f"{faster:.2f} x ({min(rates):.2f} to {max(rates):.2f}) | "
                f"{best(rounds, 'wall_s') / best(ours, 'wall_s'):.2f} x | "
                f"{max(r['peak_mb'] for r in rounds):.0f} | {rounds[0]['losses'][0]:.5f} |"
            )
        lines.append("")
    return "\n".join(lines)


def tell_all(found: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    """The rows of the table of all benches."""
    for kind, results in found.items():
        ours, tokens = results["ours"], results["ours"][0]["tokens"]
        for name, goal in TO_REACH.items():
            rates = [r["cpu_s"] / o["cpu_s"] for r, o in zip(results[name], ours, strict=True)]
            ours_s, theirs_s = best(ours, "cpu_s"), best(results[name], "cpu_s")
            note = f"per CPU second, equal losses; {min(rates):.2f} to {max(rates):.2f} over the rounds"
            said = [f"{tokens / seconds:.0f} tokens/s" for seconds in (ours_s, theirs_s)]
            ratio = theirs_s / ours_s
            tell(Row(f"training, {kind}", name, *said, ratio, f"{goal:g}x", ratio >= goal, note))


def best(rounds: list[dict[str, Any]], name: str) -> float:
    """The least of all rounds."""
    return float(min(r[name] for r in rounds))


def run_contender(name: str, kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one contender in a process of its own."""
    command = [sys.executable, __file__, str(options.data), "--kinds", kind, "--contender", name]
    for option in ("groups", "steps", "threads", "model"):
        command += [f"--{option}", str(getattr(options, option))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        sys.exit(f"{name} on {kind} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(lines[-1][7:])
    print(kind, name, result, flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default=SMALL, help="or a model, such as smollm2-135m-instruct")
    parser.add_argument("--kinds", default="gsm8k,mmlu_pro,math")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--contender", choices=PEERS)
    options = parser.parse_args()
    if options.contender:
        got = contend(options.contender, options.kinds, options)
        print("RESULT " + json.dumps(got))
        return
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for kind in options.kinds.split(","):
        found[kind] = {name: [] for name in PEERS}
        for _ in range(options.rounds):
            for name in PEERS:
                found[kind][name].append(run_contender(name, kind, options))
        losses = [r["losses"][0] for rounds in found[kind].values() for r in rounds]
        if max(losses) - min(losses) > 1e-4:
            sys.exit(f"{kind}: the contenders' losses differ: {losses}")
    used = f"python tests/bench/train_peers.py DATA --groups {options.groups} --steps {options.steps}"
    used += f" --rounds {options.rounds} --threads {options.threads} --model {options.model}"
    text = report(found, used)
    print(text)
    tell_all(found)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
