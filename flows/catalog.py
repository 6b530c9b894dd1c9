"""The recipes that are shipped, and finding one by name."""

import difflib
from importlib.resources import as_file, files
from pathlib import Path

from advdistill_core.config import DistillConfig
from advdistill_core.config.loading import apply_overrides, build_config, read_recipe
from advdistill_core.errors import InputError


def shipped() -> dict[str, Path]:
    """Shipped recipes by name."""
    with as_file(files("flows") / "recipes") as folder:
        return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(recipe: str) -> Path:
    """The file of a recipe given by name or path.

    Raises:
        InputError: neither exists.
    """
    known = shipped()
    if recipe in known:
        return known[recipe]
    if recipe.endswith((".yaml", ".yml")) or "/" in recipe:
        return Path(recipe)
    near = difflib.get_close_matches(recipe, known, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]}?" if near else f"Shipped: {', '.join(known)}."
    raise InputError("recipe", recipe, "a shipped recipe or a YAML file", hint)


def load(recipe: str, overrides: list[str], root: str | None = None) -> DistillConfig:
    """Read a recipe with overrides; `root` replaces `storage.root`.

    Args:
        recipe: a name or a path; empty for the defaults alone.
    """
    path = find(recipe) if recipe else None
    document = apply_overrides(read_recipe(path) if path else {}, overrides)
    document.pop("about", None)
    document.setdefault("name", path.stem if path else "distill")
    if root:
        document["storage"] = {**(document.get("storage") or {}), "root": root}
    config = build_config(document)
    if "://" in config.storage.root:
        return config
    storage = config.storage.model_copy(update={"root": str(Path(config.storage.root).absolute())})
    return config.model_copy(update={"storage": storage})


def about(path: Path) -> str:
    """A recipe's one-line description."""
    return str(read_recipe(path).get("about", ""))
