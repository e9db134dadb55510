"""Files of a directory, a zip or a tar: what is read, and what is refused in one line."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile

import pytest

from setrep.data.archive import open_archive
from setrep.data.archive_kinds import ArchiveLimits
from setrep.errors import InputError
from tests.fakes import write_files

FILES = {"cat/1.png": b"one", "cat/ä 猫.png": b"two", "dog/1.txt": b""}
KINDS = ["files", "files.zip", "files.tar", "files.tar.gz", "files.tar.bz2", "files.tar.xz"]


def refusal(call, *arguments):
    """Return the message of the one line in which a call refuses its input."""
    with pytest.raises(InputError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def read(archive, name):
    """Return the content of one file."""
    return dict(archive.read_many([name]))[name]


def zip_with(path, name, content=b"x", mode=0):
    """Write a zip with one good member and the given one."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fine/good.png", b"good")
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        info.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(info, content)
    return path


def tar_with(path, name, **attributes):
    """Write a tar with one good member and the given one."""
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("good.png"))
        info = tarfile.TarInfo(name)
        for key, value in attributes.items():
            setattr(info, key, value)
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    return path


@pytest.mark.parametrize("name", KINDS)
def test_the_same_files_are_read_from_a_directory_a_zip_and_a_tar(name, tmp_path):
    archive = open_archive(write_files(tmp_path / name, FILES))
    assert archive.names == tuple(sorted(FILES))
    assert dict(archive.read_many(FILES)) == FILES
    assert list(archive.read_many(["cat/2.png", "../files/cat/1.png"])) == []
    assert "cat/1.png" in archive.where("cat/1.png")


@pytest.mark.parametrize("name", ["files", "files.zip"])
def test_the_fingerprint_changes_with_any_byte_and_any_name(name, tmp_path):
    variants = [FILES, FILES | {"cat/1.png": b"onf"}, {**FILES, "cat/2.png": b"one"}]
    archives = [
        open_archive(write_files(tmp_path / str(number) / name, files))
        for number, files in enumerate(variants)
    ]
    assert len({archive.fingerprint(archive.names) for archive in archives}) == 3
    again = open_archive(write_files(tmp_path / "again" / name, FILES))
    if name == "files":
        assert again.fingerprint(again.names) == archives[0].fingerprint(again.names)


@pytest.mark.parametrize("name", KINDS[:3])
def test_hidden_files_are_left_out(name, tmp_path):
    hidden = {".DS_Store": b"", "cat/._1.png": b"", "__MACOSX/1.png": b"", ".git/x": b""}
    archive = open_archive(write_files(tmp_path / name, FILES | hidden))
    assert archive.names == tuple(sorted(FILES))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("../outside.png", "would land outside"),
        ("a/../../outside.png", "would land outside"),
        ("/etc/passwd", "has an absolute name"),
        ("C:/windows.png", "has an absolute name"),
        ("a\\..\\..\\outside.png", "backslash"),
        ("two\nlines.png", "control character"),
    ],
)
def test_a_zip_is_refused_whose_member_would_land_elsewhere(name, problem, tmp_path):
    message = refusal(open_archive, zip_with(tmp_path / "evil.zip", name))
    assert "evil.zip is refused" in message
    assert problem in message
    assert repr(name) in message


def test_a_zip_is_refused_whose_member_hides_its_name_behind_a_null(tmp_path):
    path = zip_with(tmp_path / "evil.zip", "fine.png@.exe")
    path.write_bytes(path.read_bytes().replace(b"fine.png@", b"fine.png\0"))
    assert r"'fine.png\x00.exe' has" in refusal(open_archive, path)


@pytest.mark.parametrize("name", ["../outside.png", "/etc/passwd", "a/../../outside.png"])
def test_a_tar_is_refused_whose_member_would_land_elsewhere(name, tmp_path):
    message = refusal(open_archive, tar_with(tmp_path / "evil.tar", name))
    assert repr(name) in message


@pytest.mark.parametrize(
    ("mode", "problem"), [(stat.S_IFLNK | 0o777, "is a link"), (stat.S_IFIFO, "is a device")]
)
def test_a_zip_with_a_link_or_a_device_is_refused(mode, problem, tmp_path):
    path = zip_with(tmp_path / "evil.zip", "link.png", b"/etc/passwd", mode)
    assert problem in refusal(open_archive, path)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (tarfile.SYMTYPE, "is a link"),
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.CHRTYPE, "is a device"),
        (tarfile.FIFOTYPE, "is a device"),
    ],
)
def test_a_tar_with_a_link_or_a_device_is_refused(kind, problem, tmp_path):
    path = tar_with(tmp_path / "evil.tar", "x.png", type=kind, linkname="good.png")
    assert problem in refusal(open_archive, path)


def test_in_a_directory_links_are_followed_only_to_files_inside_it(tmp_path):
    root = write_files(tmp_path / "files", {"cat/1.png": b"one"})
    os.symlink("1.png", root / "cat/2.png")
    assert read(open_archive(root), "cat/2.png") == b"one"
    (tmp_path / "secret.png").write_bytes(b"secret")
    for target, problem in [
        (tmp_path / "secret.png", "leaves the directory"),
        (tmp_path, "leaves the directory"),
        (root / "cat", "link to a directory"),
        (root / "nothing", "leads nowhere"),
        ("loop", "leads nowhere"),
    ]:
        os.symlink(target, root / "loop")
        assert problem in refusal(open_archive, root)
        (root / "loop").unlink()


def test_a_zip_with_an_encrypted_or_a_repeated_member_is_refused(tmp_path):
    path = zip_with(tmp_path / "locked.zip", "secret.png")
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert "is encrypted" in refusal(open_archive, path)
    twice = zip_with(tmp_path / "twice.zip", "./fine//good.png")
    assert "two members named 'fine/good.png'" in refusal(open_archive, twice)


def test_a_bomb_is_refused_by_the_ratio_of_a_member_and_of_the_whole(tmp_path):
    path = zip_with(tmp_path / "bomb.zip", "zeros.png", bytes(100_000))
    small = ArchiveLimits(ratio_floor=1000)
    assert "'zeros.png' would unpack" in refusal(open_archive, path, small)
    assert read(open_archive(path), "zeros.png") == bytes(100_000)
    path = write_files(tmp_path / "bomb.tar.gz", {"zeros.png": bytes(1_000_000)})
    assert "would unpack to more than 1000000 bytes" in refusal(open_archive, path, small)


@pytest.mark.parametrize("name", ["files.zip", "files.tar"])
def test_an_archive_is_refused_that_is_too_large(name, tmp_path):
    path = write_files(tmp_path / name, {"a.png": b"12345", "b.png": b"12345"})
    assert "has 5 bytes, more than the 4 allowed" in refusal(
        open_archive, path, ArchiveLimits(member_bytes=4)
    )
    assert "more than 10 bytes" in refusal(open_archive, path, ArchiveLimits(total_bytes=9))
    assert "over 1 members" in refusal(open_archive, path, ArchiveLimits(num_members=1))


def test_a_large_file_in_a_directory_is_refused_only_when_it_is_read(tmp_path):
    root = write_files(tmp_path / "files", {"film.mp4": b"12345", "a.png": b"1"})
    archive = open_archive(root, ArchiveLimits(member_bytes=4, total_bytes=4))
    assert read(archive, "a.png") == b"1"
    assert "film.mp4 has more than the 4 bytes" in refusal(read, archive, "film.mp4")


def test_a_tar_header_that_claims_a_huge_extension_is_refused(tmp_path):
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**32
    (tmp_path / "evil.tar").write_bytes(info.tobuf() + bytes(1024))
    assert "header of" in refusal(open_archive, tmp_path / "evil.tar")


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04 cut short", b"\x1f\x8b\x08", b"text"])
def test_a_file_that_is_no_archive_is_refused(content, tmp_path):
    (tmp_path / "fake.zip").write_bytes(content)
    assert "fake.zip is not a whole zip or tar archive" in refusal(
        open_archive, tmp_path / "fake.zip"
    )
    assert "There is no file or directory" in refusal(open_archive, tmp_path / "none.zip")


@pytest.mark.parametrize("name", KINDS[1:])
def test_an_archive_that_was_cut_short_is_refused(name, tmp_path):
    noise = os.urandom(5000)
    path = write_files(tmp_path / name, {"a.png": noise, "b.png": noise[::-1]})
    path.write_bytes(path.read_bytes()[:6000])

    def read_all():
        archive = open_archive(path)
        assert set(dict(archive.read_many(["a.png", "b.png"]))) == {"a.png", "b.png"}

    assert name in refusal(read_all)


def test_a_tar_with_a_damaged_header_is_refused(tmp_path):
    path = write_files(tmp_path / "files.tar", {"a.png": b"a", "b.png": b"b", "c.png": b"c"})
    content = bytearray(path.read_bytes())
    content[1024 + 3] ^= 1
    path.write_bytes(content)
    assert "no end mark" in refusal(open_archive, path)


def test_a_member_with_a_changed_byte_is_named(tmp_path):
    path = write_files(tmp_path / "files.zip", {"a.png": bytes(range(256)) * 9, "b.png": b"b"})
    content = bytearray(path.read_bytes())
    content[60] ^= 255
    path.write_bytes(content)
    archive = open_archive(path)
    assert "files.zip: a.png is damaged" in refusal(read, archive, "a.png")
    assert read(archive, "b.png") == b"b"


def test_a_name_of_a_directory_need_not_be_utf8(tmp_path):
    root = os.fsencode(write_files(tmp_path / "files", {"a.png": b"a"}))
    with open(os.path.join(root, b"caf\xe9.png"), "wb") as file:
        file.write(b"e")
    archive = open_archive(tmp_path / "files")
    assert len(archive.names) == 2
    assert len(archive.fingerprint(archive.names)) == 64
    assert [content for _, content in archive.read_many(archive.names)] == [b"a", b"e"]
