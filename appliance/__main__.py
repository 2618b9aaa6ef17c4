"""Entry point of `python -m appliance` and of the `appliance` command."""

from appliance.cli import main

if __name__ == "__main__":
    main()
