"""Loading models and tokenizers, from safetensors only."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from advdistill_core.errors import AdvDistillError, InputError
from advdistill_core.models.home import no_bars
from advdistill_core.models.sources import resolve

if TYPE_CHECKING:
    import torch


def pick_device(device: str = "auto") -> "torch.device":
    """The device that a setting stands for; auto: the GPU if there is one."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def pick_dtype(dtype: str, device: "torch.device") -> "torch.dtype":
    """The number type that a setting stands for; auto: float32 on CPU, half the size on GPU."""
    import torch

    if dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def load_model(name: str, dtype: str = "auto", device: str = "auto", trust_remote_code: bool = False) -> Any:
    """Load a causal language model, ready for inference (`model.train()` for training).

    Args:
        name: a folder, a Hub name or a built-in name.
        dtype: auto, float32, bfloat16 or float16; auto is float32 on CPU.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        InputError: the name cannot be used, see `models.check`, or what is there cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    source = resolve(name)
    target = pick_device(device)
    number_type = pick_dtype(dtype, target)
    with no_bars(), _fits_together(name):  # progress is told by the stages
        model: Any = AutoModelForCausalLM.from_pretrained(
            source.location,
            revision=source.revision,
            dtype=number_type,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
        )
    return model.to(target).eval()


def load_tokenizer(name: str, trust_remote_code: bool = False) -> Any:
    """Load a model's tokenizer; one without a padding token pads with its end token.

    Raises:
        InputError: the name cannot be used, see `models.check`, or what is there cannot be loaded.
    """
    from transformers import AutoTokenizer

    source = resolve(name)
    with _fits_together(name):
        tokenizer = AutoTokenizer.from_pretrained(
            source.location, revision=source.revision, trust_remote_code=trust_remote_code
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@contextmanager
def _fits_together(name: str) -> Iterator[None]:
    """Say in one line that a model is damaged; what else may go wrong, of the machine or ours, passes.

    Tokenizers raise bare exceptions, and transformers a RuntimeError of weights of another size.
    """
    from safetensors import SafetensorError

    try:
        yield
    except AdvDistillError:
        raise
    except Exception as error:
        text = str(error).strip() or "no more is known"
        damaged = isinstance(error, (SafetensorError, ValueError, KeyError, TypeError, AttributeError))
        if not (damaged or type(error) is Exception or "mismatched" in text):
            raise
        raise InputError(
            "model",
            name,
            "files that transformers can load together",
            f"Get it again, or take another. ({type(error).__name__}: {text.splitlines()[0]})",
        ) from error
