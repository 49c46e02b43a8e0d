"""`gfrouter keygen`: the files, their modes, and that what it prints works."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from announced import Announced, packet
from discovery import keygen, signing

NOW = 1_700_000_000


@pytest.mark.parametrize("words", [[], ["--rsa"], ["--ec"]])
def test_what_it_prints_goes_together(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert keygen.main(["foo.com:80", "--dir", str(tmp_path), *words]) == 0
    said = capsys.readouterr().out
    private, public = (tmp_path / kind / "foo.com_80.pem" for kind in ("private", "public"))
    assert f"subscribe2 = server=ROUTER:2626,key=foo.com:80,sign=SHA256:{private}\n" in said
    assert said.endswith(f"subscriptions-sign-check = SHA256:{public.parent}\n")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(public.stat().st_mode) == 0o644
    with Announced(sign_check=f"SHA256:{public.parent}") as announced:
        announced.take(signing.signer(f"SHA256:{private}")(packet(key="foo.com:80"), NOW))
        assert len(announced.nodes("foo.com:80")) == 1


@pytest.mark.parametrize("there", ["private", "public"])
def test_it_overwrites_nothing_and_leaves_no_half(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], there: str
) -> None:
    (tmp_path / there).mkdir()
    (tmp_path / there / "foo.com.pem").write_text("mine")
    assert keygen.main(["foo.com", "--dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"gfrouter keygen: {tmp_path}/{there}/foo.com.pem: File exists\n"
    assert [file.read_text() for file in tmp_path.glob("*/*.pem")] == ["mine"]


def test_a_key_that_cannot_be_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for key in "", "x" * 252:
        assert keygen.main([key, "--dir", str(tmp_path)]) == 1
        assert "1 to 251 bytes" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    for name in "discovery.signing", "discovery.keyring", "discovery.keypair":
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert keygen.main(["foo.com"]) == 1
    assert "pip install 'gfrouter[sign]'" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"pip install 'gfrouter\[sign\]' brings it"):
        Announced(sign_check="SHA1:/keys")
