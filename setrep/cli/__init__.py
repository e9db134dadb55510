"""The command line: parse, call one public function, print."""

from __future__ import annotations

from setrep.cli.app import app, main
from setrep.cli.evaluate import evaluate, verify_bounds
from setrep.cli.listing import data_app, list_names
from setrep.cli.search import embed, index, query
from setrep.cli.train import train

app.command()(train)
app.command()(evaluate)
app.command("verify-bounds")(verify_bounds)
app.command()(embed)
app.command()(index)
app.command()(query)
app.command("list")(list_names)
app.add_typer(data_app, name="data")

__all__ = ["main"]
