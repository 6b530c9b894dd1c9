"""Options that several commands share."""

from typing import Annotated, Literal

import typer

Root = Annotated[str | None, typer.Option("--root", envvar="ADVDISTILL_ROOT", help="Where artifacts live.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="Change a field; repeatable.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
FromStage = Annotated[
    Literal["load", "generate", "verify", "weigh", "train", "evaluate", "publish"] | None,
    typer.Option("--from-stage", help="Make this stage's result, and what follows, anew."),
]


def _recipes() -> list[str]:
    from flows import catalog

    return list(catalog.shipped())


#: The argument of commands that want a recipe; the shell completes the shipped ones.
Recipe = Annotated[str, typer.Argument(help="A shipped recipe or a YAML file.", autocompletion=_recipes)]
RecipeIfAny = Annotated[
    str | None, typer.Argument(help="Also check what this recipe needs.", autocompletion=_recipes)
]
