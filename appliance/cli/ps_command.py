"""`ps`: which programs run on nodes, since when, and for which job."""

from __future__ import annotations

from typing import Annotated

import typer

from appliance.api.model import Programs
from appliance.cli.choosing import TARGETS_HELP, ExcludeOption, choose_nodes
from appliance.cli.options import Exit, Output, OutputOption, StateDirOption, print_json, warn
from appliance.cli.server_options import connect
from appliance.cli.terminal import print_table
from appliance.core.escape import escape_line
from appliance.core.times import say_span


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("ps")(list_programs)


def list_programs(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TARGET", help=f"Where to look; without it everywhere. {TARGETS_HELP}"
        ),
    ] = None,
    exclude: ExcludeOption = None,
    from_node: Annotated[
        str | None, typer.Option("--from", metavar="N", help="The node that asks.")
    ] = None,
    output: OutputOption = Output.TEXT,
    state_dir: StateDirOption = None,
) -> int:
    """List the programs that run on nodes: job, asking node, program, since when, process id.

    Those of `exec`, of REQCliCommand and REQCliCommandCont however they were sent, and of methods of the config that run
    one. `jobs cancel` ends them. Exits 0 when all nodes answered, 1 when some cannot be asked (Go nodes), 3 when some
    were silent.
    """
    client = connect(state_dir)
    chosen = choose_nodes(client, targets or ["all"], exclude or (), hint="TARGET")
    body: dict[str, object] = {"nodes": chosen.names}
    if from_node is not None:
        body["from_node"] = from_node
    found = client.post("/api/v1/programs", Programs, body)
    # asked of everything, a node that runs no programs has none; asked for by name, that is what to tell
    nodes = [node for node in found.value.nodes if targets or node.runs_programs]
    if output is Output.JSON:
        print_json(found.plain)
    else:
        rows = [
            [
                *(node.node, item.job or "-", item.from_node, say_span(item.seconds)),
                *("-" if item.pid is None else str(item.pid), item.program),
            ]
            for node in nodes
            for item in node.programs
        ]
        if rows:
            cells = [[escape_line(cell) for cell in row] for row in rows]
            print_table(("NODE", "JOB", "FROM", "SINCE", "PID", "PROGRAM"), cells)
        elif not any(node.error for node in nodes):
            typer.echo("no programs run")
        for node in nodes:
            if node.error is not None:
                warn(f"{node.node}: {node.error}")
    if any(node.error is not None and not node.is_silent for node in nodes):
        return Exit.FAILED
    return Exit.SILENT if any(node.is_silent for node in nodes) else Exit.OK
