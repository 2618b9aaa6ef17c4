"""Entry point of `python -m appliance` and of the `appliance` command."""

from appliance import early

# NB: before every other import: a SIGHUP that comes during those must not be the end
early.install()


def main() -> None:
    """Run the command line and end with its exit code."""
    try:
        from appliance.cli import main as run_command_line
    except KeyboardInterrupt:  # a machine under load imports for seconds, and people lose patience
        raise SystemExit(130) from None
    raise SystemExit(run_command_line())


if __name__ == "__main__":
    main()
