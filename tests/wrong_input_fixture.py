"""What the wrong inputs are made of: files, model folders and endpoints in a folder of their own."""

import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

GOOD = {"question": "1+1?", "answer": "2"}

#: Configurations of models that are no causal language model, or none at all.
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2}


def questions(path: Path, count: int = 40, **columns: Any) -> None:
    """A good file of distinct questions."""
    rows = [{"question": f"{i}+{i}?", "answer": str(2 * i), **columns} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def lines(path: Path, *documents: object) -> None:
    path.write_text("".join(json.dumps(d) + "\n" for d in documents))


def parquet(path: Path, *rows: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows)), path)


def weights(path: Path) -> None:
    """A whole safetensors file of one small tensor."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [64], "data_offsets": [0, 256]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(256))


def model(folder: Path, tokenizer: dict[str, Any] | None = None, **changes: Any) -> None:
    """A folder that looks like a model; `changes` of its configuration."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", **(tokenizer or {})}))
    weights(folder / "model.safetensors")


def cut(path: Path, share: float = 0.5) -> None:
    """Leave only the beginning of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def make_files(here: Path) -> None:
    """Every wrong file."""
    questions(here / "good.jsonl")
    questions(here / "few.jsonl", count=3)
    questions(here / "same_id.jsonl", id="a")
    (here / "folder.jsonl").mkdir()
    (here / "empty.jsonl").write_text("")
    (here / "questions.txt").write_text("1+1?")
    lines(here / "column.jsonl", {"q": "1+1?", "answer": "2"})
    lines(here / "null.jsonl", GOOD, {"question": "2+2?", "answer": None})
    lines(here / "blank.jsonl", GOOD, {"question": "  ", "answer": "4"})
    lines(here / "list.jsonl", GOOD, {"question": "2+2?", "answer": ["4"]})
    lines(here / "numbers.jsonl", 1, 2, 3)
    lines(here / "array.jsonl", [GOOD, GOOD])
    lines(here / "choices.jsonl", {**GOOD, "options": "A, B"})
    (here / "torn.jsonl").write_text(json.dumps(GOOD) + '\n\n{"question": "2+')
    (here / "deep.jsonl").write_text("[" * 100_000)
    (here / "binary.jsonl").write_bytes(bytes(range(256)) * 4)
    (here / "latin.jsonl").write_bytes('{"question": "é", "answer": "1"}\n'.encode("latin-1"))
    (here / "latin.csv").write_bytes("question,answer\né,1\n".encode("latin-1"))
    (here / "header.csv").write_text("question,answer\n")
    (here / "short.csv").write_text("question,answer\n1+1?,2\n2+2?\n")
    (here / "long.csv").write_text("question,answer\n1+1?,2\n2+2?,4,four\n")
    (here / "quote.csv").write_text('question,answer\n"1+1?,2\n')
    (here / "null.csv").write_bytes(b"question,answer\n1+\x001?,2\n")
    (here / "text.parquet").write_text("question,answer\n1+1?,2\n")
    (here / "dangling.jsonl").symlink_to(here / "gone.jsonl")
    parquet(here / "torn.parquet", *({"question": f"{i}?", "answer": str(i)} for i in range(100)))
    cut(here / "torn.parquet")
    parquet(here / "column.parquet", {"frage": "1+1?", "answer": "2"})
    (here / "dataset").mkdir()
    (here / "dataset" / "train.csv").write_text("q,a\n1,1\n")


def make_recipes(here: Path) -> None:
    """Every wrong recipe."""
    texts = {
        "syntax": "teacher: {k: 8\nstudent: 3",
        "tabs": "teacher:\n\tk: 8\n",
        "list": "- teacher\n- student\n",
        "empty": "",
        "twice": "teacher:\n  k: 4\nprompts:\n  num_train: 3\nteacher:\n  top_p: 0.9\n",
        "twice_inside": "teacher:\n  k: 4\n  k: 8\n",
        "object": "teacher: !!python/object/apply:os.system ['true']\n",
        "scalar_section": "teacher: 5\n",
        "null_section": "teacher:\nstudent:\n",
        "list_section": "teacher: [k, 8]\n",
        "number_key": "1: 2\n",
        "date": "name: 2026-01-01\n",
        "about": "about: [1, 2]\nteachr: {}\n",
    }
    for name, text in texts.items():
        (here / f"{name}.yaml").write_text(text)
    (here / "utf16.yaml").write_text("teacher: {k: 4}\n", encoding="utf-16")
    (here / "binary.yaml").write_bytes(b"\x00\x01\x02teacher")
    (here / "folder.yaml").mkdir()


def make_models(here: Path) -> None:
    """Every wrong model folder."""
    models = here / "models"
    models.mkdir()
    model(models / "good")
    model(models / "no_config")
    (models / "no_config" / "config.json").unlink()
    model(models / "torn_config")
    cut(models / "torn_config" / "config.json")
    model(models / "no_weights")
    (models / "no_weights" / "model.safetensors").unlink()
    model(models / "pickled")
    (models / "pickled" / "model.safetensors").rename(models / "pickled" / "pytorch_model.bin")
    model(models / "no_tokenizer")
    for file in (models / "no_tokenizer").glob("token*"):
        file.unlink()
    model(models / "torn_tokenizer")
    (models / "torn_tokenizer" / "tokenizer.json").write_text('{"version": "1.0", "model": {"voc')
    model(models / "torn_weights")
    cut(models / "torn_weights" / "model.safetensors", 0.9)
    model(models / "empty_weights")
    (models / "empty_weights" / "model.safetensors").write_bytes(b"")
    model(models / "lfs_pointer")
    (models / "lfs_pointer" / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    model(models / "endless", tokenizer={"eos_token": None})
    model(models / "encoder", model_type="bert", architectures=["BertForMaskedLM"])
    model(models / "seq2seq", model_type="t5", architectures=["T5ForConditionalGeneration"])
    model(models / "unknown_type", model_type="frobnicate", architectures=["FrobnicateForCausalLM"])
    model(models / "shards")
    index = {"weight_map": {"w": "model.safetensors", "v": "model-2.safetensors"}}
    (models / "shards" / "model.safetensors.index.json").write_text(json.dumps(index))
    model(models / "torn_index")
    (models / "torn_index" / "model.safetensors.index.json").write_text('{"weight_map": {')
    (here / "file_model").write_text("weights")


def make_grading_files(here: Path) -> None:
    """Wrong inputs of `verify` and `weigh`."""
    answer = {"gold": "2", "prediction": "It is 2."}
    row = {"prompt_id": "a", "correct": True, "reward": 1.0}
    lines(here / "answers.jsonl", answer)
    lines(here / "rewards.jsonl", row)
    lines(here / "no_gold.jsonl", answer, {"prediction": "2"})
    lines(here / "gold_list.jsonl", {**answer, "gold": [2]})
    lines(here / "no_text.jsonl", {**answer, "prediction": None})
    lines(here / "bad_choices.jsonl", {**answer, "choices": "ab"})
    lines(here / "n_choices.jsonl", {**answer, "n_choices": 99})
    (here / "torn_answers.jsonl").write_text(json.dumps(answer) + '\n{"gold": ')
    lines(here / "no_reward.jsonl", {"prompt_id": "a", "correct": True})
    lines(here / "text_reward.jsonl", row, {**row, "reward": "high"})
    lines(here / "maybe.jsonl", {**row, "correct": "maybe"})
    (here / "infinite.jsonl").write_text('{"prompt_id": "a", "correct": true, "reward": Infinity}\n')


def make_stores(here: Path) -> None:
    """Roots that are wrong in their own ways."""
    (here / "file_root").write_text("no folder")
    broken = here / "broken_store"
    (broken / "champions").mkdir(parents=True)
    (broken / "champions" / "default.json").write_text("{")
    (broken / "runs").mkdir()
    (broken / "runs" / "x.json").write_text('{"run_id": 1}')
    (here / "empty_store").mkdir()


def make_world(here: Path) -> None:
    for make in (make_files, make_recipes, make_models, make_grading_files, make_stores):
        make(here)


class _Handler(BaseHTTPRequestHandler):
    """Fails in the way that the first part of the path says."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def _answer(self) -> None:
        _, kind, *rest = self.path.split("/")
        if kind == "locked":
            self._send(401, json.dumps({"error": "no key"}))
        elif kind == "page":
            self._send(200, "<html>Welcome</html>", "text/html")
        elif kind == "listing" and rest[-1] == "models":
            self._send(200, json.dumps({"data": [{"id": "qwen2.5-7b"}]}))
        elif kind == "broken":
            self._send(500, "")
        elif kind == "moved":
            self._send(301, "", location="https://example.invalid/v1")
        elif kind == "list":
            self._send(200, "[1, 2]")
        else:
            self._send(404, json.dumps({"error": "no such model"}))

    def _send(self, status: int, body: str, kind: str = "application/json", location: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def wrong_endpoint() -> Iterator[str]:
    """The address of a server that only fails."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
