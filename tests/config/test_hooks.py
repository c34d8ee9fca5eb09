"""The settings of hooks."""

from pathlib import Path
from typing import Any

import pytest
from support import draw

from nst_pipeline.config.pipeline import Config, load
from nst_pipeline.errors import ConfigError
from nst_pipeline.manifest.records import resolved


def read(folder: Path, text: str) -> Config:
    """Return the settings with this hook."""
    draw(folder / "style.png")
    (folder / "pipeline.yaml").write_text(f"styles: {{s: style.png}}\non_done: {text}\n")
    return load(folder / "pipeline.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("[notify, --fast, 5]", {"command": ("notify", "--fast", "5")}),
        ("{command: [notify], timeout_seconds: 2}", {"command": ("notify",), "timeout_seconds": 2}),
        ("{url: 'https://h:8/p?q', secret_env: A_B}", {"url": "https://h:8/p?q"}),
        ("{url: 'http://[::1]/', command: [x]}", {"url": "http://[::1]/", "command": ("x",)}),
    ],
)
def test_a_hook_is_a_command_an_address_or_both(tmp_path: Path, text: str, expected: Any) -> None:
    hook = read(tmp_path, text).on_done
    assert (hook is None) == (expected is None)
    for name, value in (expected or {}).items():
        assert getattr(hook, name) == value


def test_a_program_with_a_folder_is_relative_to_the_settings_and_any_other_is_not(
    tmp_path: Path,
) -> None:
    hook = read(tmp_path, "{command: [bin/notify, bin/x], url: 'http://h', secret_file: k}").on_done
    assert hook and hook.command == (f"{tmp_path}/bin/notify", "bin/x")
    assert hook.secret_file == tmp_path / "k"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("notify --fast", "2: on_done.command: 'notify --fast' is one text, and no shell"),
        ("[]", "on_done.command: is "),
        ("['']", "cannot be started; name a program first"),
        ("{timeout_seconds: 5}", "on_done: needs a command, a url, or both"),
        ("{command: [x], timeout_seconds: 0}", "on_done.timeout_seconds: is 0"),
        ("{command: [x], secret_file: k}", "no url to sign anything for"),
        ("{url: 'http://h', secret_file: k, secret_env: K}", "give one of them"),
        ("{url: 'http://h', secret: hidden-word}", "on_done.secret: unknown key; did you mean"),
        ("{url: 'http://me:hidden-word@h/'}", "holds a name or a password"),
        ("{url: 'ftp://h/hidden-word'}", "on_done.url: is no address; give one as https://"),
        ("{url: 'file:///hidden-word'}", "is no address"),
        ("{url: 'https:///hidden-word'}", "is no address"),
        ("{url: 'http://h:99999/hidden-word'}", "is no address"),
        ("{url: 'http://h/hidden word'}", "is no address"),
        ('{url: "http://h/a\\r\\nhidden-word: x"}', "is no address"),
        ("{url: 'http://h', secret_env: 'A B'}", "on_done.secret_env: is 'A B'"),
    ],
)
def test_what_cannot_be_told_is_refused_and_no_secret_repeated(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, text)
    assert message in str(raised.value) and "hidden" not in str(raised.value)


def test_a_manifest_names_the_host_alone(tmp_path: Path) -> None:
    config = read(tmp_path, "{url: 'https://host:8443/hidden?hidden#hidden', secret_file: k}")
    hook = resolved(config)["on_done"]
    assert hook["url"] == "https://host:8443" and hook["secret_file"] == str(tmp_path / "k")
    assert hook["max_attempts"] == 10
    assert config.on_done and config.on_done.url == "https://host:8443/hidden?hidden#hidden"
