"""The default place of the admin API: one for each user, in a folder that nobody else can write to."""

import os
from pathlib import Path

import pytest

from router.place import check_folder, default_place, make_folder

ME = os.geteuid()


@pytest.mark.parametrize(
    ("environ", "uid", "path"),
    [
        ({}, 0, "/run/gfrouter/admin.sock"),
        ({"XDG_RUNTIME_DIR": "/run/user/0"}, 0, "/run/gfrouter/admin.sock"),  # a service and a shell must agree
        ({"XDG_RUNTIME_DIR": "/run/user/7"}, 7, "/run/user/7/gfrouter/admin.sock"),
        ({}, 7, "/tmp/gfrouter-7/admin.sock"),
        ({"XDG_RUNTIME_DIR": ""}, 7, "/tmp/gfrouter-7/admin.sock"),
        ({"XDG_RUNTIME_DIR": "run"}, 7, "/tmp/gfrouter-7/admin.sock"),  # relative: not to be believed
    ],
)
def test_each_user_has_a_place(environ: dict[str, str], uid: int, path: str) -> None:
    assert default_place(environ, uid) == path


def test_a_missing_folder_is_made_for_this_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "gfrouter"
    make_folder(str(folder), ME)
    assert folder.stat().st_mode & 0o777 == 0o700
    make_folder(str(folder), ME)  # and is taken as it is when it is there


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^cannot make the folder .*/none/gfrouter: No such file or directory$"):
        make_folder(str(tmp_path / "none" / "gfrouter"), ME)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ValueError, match=r"/link is not a folder$"):
        make_folder(str(tmp_path / "link"), ME)


def test_a_file_of_that_name_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "gfrouter").touch()
    with pytest.raises(ValueError, match=r"/gfrouter is not a folder$"):
        make_folder(str(tmp_path / "gfrouter"), ME)


def test_another_users_folder_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "gfrouter"
    folder.mkdir(0o700)
    with pytest.raises(ValueError, match=rf"is user {ME}'s, not user {ME + 1}'s$"):
        check_folder(str(folder), ME + 1)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o1777])
def test_a_folder_that_others_can_write_to_is_not_used(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "gfrouter"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ValueError, match=rf"writable for others \(mode {mode:o}\)$"):
        check_folder(str(folder), ME)


def test_a_folder_that_a_service_manager_made_may_be_readable(tmp_path: Path) -> None:
    folder = tmp_path / "gfrouter"
    folder.mkdir()
    folder.chmod(0o755)
    check_folder(str(folder), ME)
