"""Entry point of `python -m appliance` and of the `appliance` command."""

from appliance import early

# NB: before every other import: a SIGHUP that comes during those must not be the end
early.install()


def main() -> None:
    """Run the command line and end with its exit code."""
    from appliance.cli import main as run_command_line

    raise SystemExit(run_command_line())


if __name__ == "__main__":
    main()
