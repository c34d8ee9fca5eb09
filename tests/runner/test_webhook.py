"""Webhooks against a server on this machine: what is sent, how it is signed, and that it ends."""

import base64
import hashlib
import hmac
from collections.abc import Iterator
from pathlib import Path

import pytest
from receiver import Server, receiving

from nst_pipeline.config.hooks import HookSettings
from nst_pipeline.errors import HookError
from nst_pipeline.runner.webhook import post, secret_of


@pytest.fixture
def server() -> Iterator[Server]:
    with receiving() as server:
        yield server


def send(server: Server, secret: bytes | None = b"s3cret", seconds: float = 60) -> bool:
    return post(server.url, b'{"a": 1}', "key-1", secret, seconds, lambda: False)


def test_what_is_sent_can_be_checked_with_the_secret(server: Server) -> None:
    assert send(server)
    ((path, headers, body),) = server.requests
    assert path == "/hook/s3cretpath" and body == b'{"a": 1}'
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == headers["idempotency-key"] == "key-1"
    signed = f"key-1.{headers['webhook-timestamp']}.".encode() + body
    mac = base64.b64encode(hmac.new(b"s3cret", signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{mac}"


def test_without_a_secret_nothing_is_signed(server: Server) -> None:
    assert send(server, None)
    assert "webhook-signature" not in server.requests[0][1]


def test_an_answer_of_failure_is_told_and_no_redirection_followed(server: Server) -> None:
    server.statuses = [503, 307, 302]
    for message in ("status 503$", "status 307; redirections are not followed", "status 302"):
        with pytest.raises(HookError, match=message) as raised:
            send(server)
        assert "s3cret" not in str(raised.value)
    assert [path for path, _, _ in server.requests] == ["/hook/s3cretpath"] * 3


def test_an_answer_that_never_ends_holds_up_nobody(server: Server) -> None:
    server.statuses = [0, 0]
    with pytest.raises(HookError, match=r"no answer within 0\.3 s"):
        send(server, seconds=0.3)
    is_over = iter([False, True])
    assert not post(server.url, b"", "k", None, 600, lambda: next(is_over))


def test_a_server_that_is_not_there_is_told_without_the_address(server: Server) -> None:
    with pytest.raises(HookError, match="^Connection refused$"):
        post("http://127.0.0.1:9/s3cretpath", b"", "k", None, 60, lambda: False)
    with pytest.raises(HookError, match="^[^/]*$"):
        post(server.url.replace("http:", "https:"), b"", "k", None, 60, lambda: False)


def test_a_secret_is_read_anew_from_its_file_or_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret"
    settings = HookSettings(url="https://host/x", secret_file=path)
    with pytest.raises(HookError, match=f"secret_file {path}: No such file"):
        secret_of(settings)
    for text, secret in (("abc\n", b"abc"), ("whsec_QUJD", b"ABC")):
        path.write_text(text)
        assert secret_of(settings) == secret
    for text in ("", "\n", "whsec_?S3CRET", "S3CRET" * 1000):
        path.write_text(text)
        with pytest.raises(HookError) as raised:
            secret_of(settings)
        assert "S3CRET" not in str(raised.value)
    path.write_bytes(b"S3CRET\xff")
    with pytest.raises(HookError, match="no text"):
        secret_of(settings)
    settings = HookSettings(url="https://host/x", secret_env="HOOK_SECRET")
    with pytest.raises(HookError, match="HOOK_SECRET: holds no secret"):
        secret_of(settings)
    monkeypatch.setenv("HOOK_SECRET", "abc")
    assert secret_of(settings) == b"abc"
