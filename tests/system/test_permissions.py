"""What the broker denies reaches the worker it concerns; the others go on, and it heals when the broker allows it."""

import contextlib

from tests.support.appliance import Appliance
from tests.support.nats_server import NatsServer

ACCOUNTS = """
authorization {{
  users: [{{user: app, password: secret, permissions: {{
    publish: {{allow: [">"], deny: {deny_publish}}}, subscribe: {{allow: [">"], deny: {deny_subscribe}}}}}}}]
}}
"""
CONFIG = """
version: 1
broker: {{servers: ["{url}"], auth: {{user: app, password: {{file: {secret}}}}}, reconnect_wait: 50ms}}
nodes:
  central: {{publish: {{pings: {{to: ship1, method: REQPing}}}}, subscribe: {{REQPong: {{}}}}}}
  ship1: {{subscribe: {{REQPing: {{}}, REQToConsole: {{}}}}}}
"""
DENIED = "ship1.REQToConsole.EventACK_subscriber"


def test_a_denied_subscription_backs_off_with_the_brokers_words_and_heals(tmp_path):
    secret = tmp_path / "password"
    secret.write_text("secret")
    denied = ACCOUNTS.format(deny_publish="[]", deny_subscribe='["ship1.REQToConsole.>"]')
    with NatsServer(denied) as broker:
        text = CONFIG.format(url=broker.url, secret=secret)
        with Appliance(text, tmp_path / "node") as appliance:
            appliance.wait_until(lambda _: appliance.worker(DENIED)["phase"] == "backing_off")
            assert "ermission" in appliance.worker(DENIED)["last_error"]
            assert appliance.worker("ship1.REQPing.EventACK_subscriber")["phase"] == "running"
            status = appliance.wait_until(lambda status: not status["healthy"])
            [why] = status["degraded_by"]
            assert why.startswith(f"1 worker does not run: {DENIED} (")
            assert "ermissions" in why
            assert "secret" not in appliance.log()
            appliance.wait_until(lambda _: appliance.worker(DENIED)["restarts"] >= 2)
            assert "worker recovered" not in appliance.log()
            broker.reload(ACCOUNTS.format(deny_publish="[]", deny_subscribe="[]"))
            appliance.wait_until(lambda status: status["healthy"])
            appliance.wait_until(lambda _: appliance.log().count("worker recovered") == 1)


def test_a_login_refused_at_start_is_told_and_the_daemon_goes_on_until_it_is_right(tmp_path):
    secret = tmp_path / "password"
    secret.write_text("wrong")
    with NatsServer(ACCOUNTS.format(deny_publish="[]", deny_subscribe="[]")) as broker:
        daemon = Appliance(CONFIG.format(url=broker.url, secret=secret), tmp_path / "node")
        with contextlib.closing(daemon.start(ready=False)) as appliance:
            appliance.wait_api()
            status = appliance.wait_until(lambda status: not status["healthy"])
            (reason,) = [text for text in status["degraded_by"] if "broker" in text]
            assert reason.startswith("not connected to the broker: ")
            assert "refused the credentials" in reason
            unready = (503, f"{reason}\n")
            appliance.wait_until(lambda _: appliance.request("GET", "/readyz") == unready)
            assert "refused the credentials" in appliance.log()
            assert "wrong" not in appliance.log()
            secret.write_text("secret")
            appliance.wait_until(lambda status: status["healthy"])
