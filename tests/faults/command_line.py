"""The command line, with a hub that takes everything and the flow `redistill` as a command.

Of that flow the whole run is the stages `load` and `select`: there is never enough that is new.
"""

import json
import sys

from pipeline import pretend_hub

from flows.cli import app, main
from flows.options import AsJson, Overrides, Recipe, Root


@app.command()
def redistill(
    recipe: Recipe,
    overrides: Overrides = None,
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """Look for new questions."""
    from advdistill_core.config import RedistillConfig
    from flows import catalog
    from flows.launch import run_here

    policy = RedistillConfig(min_new_prompts=1_000_000)
    config = catalog.load(recipe, overrides or [], root)
    summary = run_here(config, "redistill", policy=policy)  # type: ignore[arg-type]
    if as_json:
        print(json.dumps(summary))


if __name__ == "__main__":
    pretend_hub()
    sys.exit(main())
