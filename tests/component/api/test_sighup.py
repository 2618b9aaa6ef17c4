"""SIGHUP from the first instruction on: remembered by what will be a daemon, the end of everything else."""

import os
import signal
import subprocess
import sys

HEAVY = "asyncio typer rich aiohttp nats prometheus_client sqlite3 logging re".split()  # noqa: SIM905


def start(script):
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # what runs the tests may have been told to ignore it
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )


def test_hundreds_of_hups_while_the_program_loads_are_one_reload_later():
    script = (
        "import appliance.__main__\n"
        "print('installed', flush=True)\n"
        "import appliance.daemon\n"
        "input()\n"
        "from appliance import early\n"
        "print(early.take_hup(), early.take_hup(), flush=True)\n"
    )
    with start(script) as process:
        assert process.stdout.readline() == "installed\n"
        for _ in range(200):
            process.send_signal(signal.SIGHUP)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "True False\n"
        assert process.wait(60) == 0


def test_nothing_heavy_is_imported_before_the_signal_is_taken_over():
    script = f"import sys; before = set(sys.modules); import appliance.early; print({HEAVY!r}, set(sys.modules) - before)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    heavy, loaded = done.stdout.split("] ", 1)
    assert not [name for name in HEAVY if f"'{name}'" in loaded], heavy
    assert loaded.count("'") // 2 <= 4


def test_a_client_command_ends_with_its_terminal():
    script = (
        "import os, signal\n"
        "from appliance import early\n"
        "early.install()\n"
        "signal.raise_signal(signal.SIGHUP)\n"
        "print('alive', flush=True)\n"
        "early.restore()\n"
        "print('not reached', flush=True)\n"
    )
    with start(script) as process:
        out, _ = process.communicate(timeout=60)
        assert out == "alive\n"
        assert process.returncode == -signal.SIGHUP


def test_a_client_that_was_told_to_ignore_hups_goes_on_ignoring_them():
    script = (
        "import signal\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from appliance import early\n"
        "early.install()\n"
        "signal.raise_signal(signal.SIGHUP)\n"
        "early.restore()\n"
        "print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, flush=True)\n"
    )
    with start(script) as process:
        assert process.communicate(timeout=60)[0] == "True\n"


def test_children_do_not_inherit_anything_of_it():
    script = (
        "import appliance.__main__, subprocess, sys\n"
        "child = 'import signal; print(signal.getsignal(1) is signal.SIG_DFL, signal.pthread_sigmask(0, []))'\n"
        "print(subprocess.run([sys.executable, '-c', child], capture_output=True, text=True).stdout)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    assert done.stdout.strip() == "True set()"
