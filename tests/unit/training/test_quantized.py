"""QLoRA: 4-bit weights with LoRA updates, on CPU where the library is installed."""

import importlib.util
import random

import pytest
import torch
from transformers import AutoModelForCausalLM

from advdistill_core.config import StudentConfig
from advdistill_core.errors import InputError
from advdistill_core.models.tiny import NAME as TINY
from advdistill_core.models.tiny import folder as folder_of_tiny
from advdistill_core.progress import silent
from advdistill_core.training import quantized
from advdistill_core.training.fit import fit
from advdistill_core.training.rows import Group, Row
from advdistill_core.training.student import load_student, save_student

CONFIG = StudentConfig(
    model=TINY, quantization="nf4", lora_rank=4, learning_rate=1e-2, epochs=5, groups_per_step=4,
    checkpoint_every_steps=2,
)  # fmt: skip
installed = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs the extra qlora"
)


def some_groups():
    r = random.Random(0)
    rows = [tuple(r.randrange(4, 90) for _ in range(6)) for _ in range(8)]
    return [Group(f"{i}", (5, 6, 7), tuple(Row(c, 0.5) for c in rows[2 * i : 2 * i + 2])) for i in range(4)]


def test_without_the_library_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(quantized.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"nf4 without bitsandbytes.*advdistill\[qlora\]") as caught:
        load_student(CONFIG)
    assert "\n" not in str(caught.value)


def test_what_the_library_is_told():
    told = quantized.settings(CONFIG, torch.device("cpu"))
    assert (told["load_in_4bit"], told["bnb_4bit_quant_type"]) == (True, "nf4")
    assert told["bnb_4bit_compute_dtype"] == torch.float32
    with pytest.raises(ValueError, match="lora_rank above 0"):
        StudentConfig(quantization="nf4")


def check_training(folder, device):
    config = CONFIG.model_copy(update={"device": device})
    model = load_student(config)
    linear = model.get_base_model().model.layers[0].self_attn.q_proj.base_layer
    assert linear.weight.dtype == torch.uint8
    assert linear.weight.numel() == 64 * 64 // 2  # two weights a byte
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    before = linear.weight.clone()
    fitted = fit(model, some_groups(), config, folder / "checkpoints", silent)
    assert fitted.log[-1]["loss"] < 0.9 * fitted.log[0]["loss"]
    assert torch.equal(linear.weight, before)
    again = fit(load_student(config), some_groups(), config, folder / "checkpoints", silent)
    assert again.log == fitted.log
    ids = torch.tensor([[5, 6, 7, 8]], device=model.device)
    expected = fitted.model.eval()(ids).logits.detach().float().cpu()
    save_student(fitted.model, folder / "model")
    loaded = AutoModelForCausalLM.from_pretrained(folder / "model")
    assert loaded.dtype == torch.float32
    assert getattr(loaded.config, "quantization_config", None) is None
    with torch.no_grad():
        got = loaded(ids.cpu()).logits
        start = AutoModelForCausalLM.from_pretrained(folder_of_tiny())(ids.cpu()).logits
    assert (expected - start).abs().max() > 1
    assert (got - expected).abs().max() < 0.05 * (expected - start).abs().max()


@installed
def test_training_on_cpu(tmp_path):
    check_training(tmp_path, "cpu")


@pytest.mark.gpu
@installed
def test_training_on_gpu(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    check_training(tmp_path, "cuda")
