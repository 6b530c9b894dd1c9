"""Models by name: a folder, a Hub name, or one that is made on this machine.

Importing this package costs milliseconds; torch and transformers are imported when a
model is loaded. Tokenizers' chat templates are applied in `chat`.
"""

from advdistill_core.models.load import load_model, load_tokenizer
from advdistill_core.models.sources import check, identity, num_layers, whereabouts

__all__ = ["check", "identity", "load_model", "load_tokenizer", "num_layers", "whereabouts"]
