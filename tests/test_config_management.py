"""``[management]`` and ``[[subscription]]``."""

from __future__ import annotations

from pathlib import Path

import pytest

from vivavoce.config import Config, ConfigError, StoreSettings, SubscriptionSettings, load_config

TOKENS = "[development_issuer]\nenabled = true\n"
ENABLED = "[management]\nenabled = true\n" + TOKENS


def load(text: str, folder: Path) -> Config:
    file = folder / "vivavoce.toml"
    file.write_text(text, encoding="utf-8")
    return load_config(file, environ={})


def test_it_is_off_unless_asked_for(tmp_path: Path) -> None:
    config = load("", tmp_path)
    assert (config.management.enabled, config.store, config.subscriptions) == (False, None, ())


def test_what_is_changed_is_kept(tmp_path: Path) -> None:
    assert load(ENABLED, tmp_path).store == StoreSettings()
    named = load(ENABLED + '[store]\nurl = "sqlite:///mine.db"\n', tmp_path)
    assert named.store is not None
    assert named.store.url is not None


def test_subscriptions_are_read(tmp_path: Path) -> None:
    text = '[[subscription]]\nid = "s"\ntenant = "t"\nname = "House"\nresource_groups = ["a", "b"]\n'
    assert load(text, tmp_path).subscriptions == (
        SubscriptionSettings(id="s", tenant="t", name="House", resource_groups=("a", "b")),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[management]\nenabled = true\n",
            "management.enabled: it takes tokens alone: add [entra] or an [[issuer]]",
        ),
        (
            ENABLED.replace("= true\n", '= true\nendpoint = "voice"\n', 1),
            "management.endpoint: expected a URL such as https://{account}.voice.example/",
        ),
        (
            ENABLED.replace("= true\n", '= true\nendpoint = "https://{name}.example/"\n', 1),
            "management.endpoint: expected a URL such as https://{account}.voice.example/",
        ),
        ("[management]\nport = 1\n", "management.port: unknown option (there are: enabled, endpoint)"),
        ("[[subscription]]\nid = 's'\n", "subscription[0].tenant: is required"),
        (
            "[[subscription]]\nid = 'a/b'\ntenant = 't'\n",
            "subscription[0].id: 'a/b' is not of 1 to 90 letters, digits and the characters ._()-",
        ),
        (
            "[[subscription]]\nid = 's'\ntenant = 't'\n[[subscription]]\nid = 'S'\ntenant = 't'\n",
            "subscription[1].id: 'S' is already the id of subscription[0]",
        ),
        (
            "[[subscription]]\nid = 's'\ntenant = 't'\nresource_groups = ['']\n",
            "subscription[0].resource_groups[0]: '' is not of 1 to 90 letters, digits and the characters ._()-",
        ),
    ],
)
def test_faults_name_their_place(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load(text, tmp_path)
    assert str(raised.value) == message


def test_an_endpoint_names_the_account(tmp_path: Path) -> None:
    text = ENABLED.replace("= true\n", '= true\nendpoint = "https://{account}.voice.example:8443/"\n', 1)
    assert load(text, tmp_path).management.endpoint == "https://{account}.voice.example:8443/"
