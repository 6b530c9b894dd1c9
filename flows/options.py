"""Options that several commands share."""

from typing import Annotated

import typer

Root = Annotated[str | None, typer.Option("--root", envvar="ADVDISTILL_ROOT", help="Where artifacts live.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="Change a field; repeatable.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
