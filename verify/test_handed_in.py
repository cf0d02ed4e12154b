"""What students hand in: folders and archives of every kind are taken, and none harms the grader."""

import gzip
import re
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from grader import BROKEN, SOLUTION, hand_in

from course import ROOT
from course.grading import handed_in
from course.isolation.limits import MB


def taken_over(path: Path, into: Path) -> handed_in.HandedIn:
    found = handed_in.one(path)
    found.take_over(into)
    return found


# ------------------------------------------------------------------------------ archives that are bombs


def member(kind: bytes, size: int, content: bytes = b"", name: str = "ex07_providers.py") -> bytes:
    """A member of a tar archive that says of its size what it likes."""
    info = tarfile.TarInfo(name)
    info.type = kind
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content + bytes(-len(content) % 512)


def big(kind: bytes, size: int = 60, **said: str) -> bytes:
    return member(kind, size * MB, bytes(size * MB), **said)


SHORT, LONG = (b"%d a=".ljust(size - 4, b"a") % size + b"\n" for size in (16_000, 32_000))  # records of pax
SPARSE = b"28 GNU.sparse.size=90000000\n26 GNU.sparse.numblocks=1\n22 GNU.sparse.map=0,0\n"
TOO_MUCH = "cannot be unpacked: it takes too much memory."
BOMBS = {
    "large": (lambda: big(tarfile.REGTYPE), "holds more than 50 MB"),
    "larger": (lambda: big(tarfile.REGTYPE, 90), "cannot be unpacked: [Errno 27] File too large"),
    "skipped": (lambda: big(tarfile.REGTYPE, 90, name="node_modules/skipped"), "It holds no file of any exercise"),
    "folder": (lambda: member(tarfile.DIRTYPE, -(10**12)) + big(tarfile.REGTYPE), "holds more than 50 MB"),
    "negative": (lambda: member(tarfile.XHDTYPE, -(10**12)), "cannot be unpacked: "),
    "header": (lambda: big(tarfile.XHDTYPE, 500), TOO_MUCH),
    "name": (lambda: big(tarfile.GNUTYPE_LONGNAME, 500), TOO_MUCH),
    "record": (lambda: member(tarfile.XHDTYPE, len(LONG), LONG), "it is broken"),
    "records": (lambda: 100 * member(tarfile.XGLTYPE, len(SHORT), SHORT), "it is broken"),
    "sparse": (lambda: member(tarfile.XHDTYPE, len(SPARSE), SPARSE) + member(tarfile.REGTYPE, 0), "File too large"),
    "deep": (lambda: member(tarfile.REGTYPE, 0, name="a/" * 40 + "b"), "It holds no file of any exercise"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_no_archive_fills_the_disk_or_the_memory(tmp_path, kind):
    content, sentence = BOMBS[kind]
    (path := tmp_path / "anna.tar.gz").write_bytes(gzip.compress(content(), 1))
    tracemalloc.start()
    refused = taken_over(path, tmp_path / "in").refused
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sentence in refused
    assert "Traceback" not in refused
    assert peak < 10 * MB
    assert sum(file.stat().st_size for file in (tmp_path / "in").rglob("*") if file.is_file()) < 51 * MB


def test_a_zip_of_a_million_entries_costs_its_own_memory(tmp_path):
    """All of them are the same entry, named a million times in the directory at the archive's end."""
    with zipfile.ZipFile(path := tmp_path / "anna.zip", "w") as archive:
        archive.writestr("ex07_providers.py", "")
    content = path.read_bytes()
    begin, end, number = content.index(b"PK\1\2"), content.index(b"PK\5\6"), 10**6
    names = content[begin:end] * number
    there = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, number, number, len(names), begin)
    there += struct.pack("<4sIQI", b"PK\6\7", 0, begin + len(names), 1)
    there += struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 2**16 - 1, 2**16 - 1, len(names), 2**32 - 1, 0)
    path.write_bytes(content[:begin] + names + there)
    refused = taken_over(path, tmp_path / "in").refused
    assert re.fullmatch(r"anna.zip cannot be unpacked: it (takes too much|used more than 0.25 GB of) memory\.", refused)


# ------------------------------------------------------------------------------ what is taken


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["GNU", "pax"])
@pytest.mark.parametrize(("name", "mode"), [("a.tar", ""), ("a.tgz", "gz"), ("a.tar.bz2", "bz2"), ("a.TAR.XZ", "xz")])
def test_every_kind_of_tar_is_taken(tmp_path, kind, name, mode):
    with tarfile.open(tmp_path / name, f"w:{mode}", format=kind) as archive:
        archive.add(hand_in(tmp_path / "course"), "é" * 120)  # too long for the header alone
    found = taken_over(tmp_path / name, tmp_path / "in")
    assert (found.refused, list(found.digests)) == ("", ["ex07_providers.py"])


def test_no_message_tells_where_the_grader_works(tmp_path):
    """An archive in which a file is also a folder. One with the same file twice is taken: the second counts."""
    for second in ("ex07_providers.py/file", "ex07_providers.py"):
        with tarfile.open(tmp_path / "anna.tar", "w") as archive:
            for name in ("ex07_providers.py", second):
                archive.addfile(tarfile.TarInfo(name))
        refused = taken_over(tmp_path / "anna.tar", tmp_path / "in").refused
        assert bool(refused) == second.endswith("/file")
        assert not refused or re.fullmatch(r"anna\.tar cannot be unpacked: \[.*'ex07_providers\.py.*", refused)
        assert str(tmp_path) not in refused


def test_a_class_as_platforms_hand_it_out(tmp_path):
    """Each student has a row: with points, or with a sentence that says what cannot be taken."""
    folder = tmp_path / "class"
    hand_in(folder / "mac" / "hw1")
    hand_in(folder / "mac" / "__MACOSX" / "hw1", file="._ex07_providers.py")
    hand_in(folder / "moodle_1_file_", "", ".DS_Store")
    with zipfile.ZipFile(folder / "moodle_1_file_" / "hw1.zip", "w") as archive:
        archive.writestr("hw1/ex07_providers.py", BROKEN)
    (folder / "linked").symlink_to(folder / "mac")
    for name in ("anna.7z", "bob.rar", "carl.py", "README", "grades.csv", "notes.txt", "index.html", ".hidden"):
        hand_in(folder, "7z", name)
    found = handed_in.several(folder)
    for number, submission in enumerate(found):
        submission.take_over(tmp_path / str(number))
    unknown = "is neither a folder nor an archive of a known kind. Hand in a folder or an archive"
    assert {one.name: one.refused.partition(" (")[0] or list(one.digests) for one in found} == {
        **{name: f"{name} {unknown}" for name in ("anna.7z", "bob.rar", "carl.py")},
        "linked": "linked is a link, and links are not followed. Hand in a folder or an archive",
        "mac": ["ex07_providers.py"],
        "moodle_1_file_": ["ex07_providers.py"],
    }


NOTHING = "Nothing was handed in: there is no "


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("ex04_inference.py", " ex04_inference.py is a link, and was left out."),
        ("ex07_providers.py", " EX07_providers.py has another name: upper and lower case differ."),
        ("ex02_check.py", ""),
    ],
)
def test_a_link_and_a_name_in_capitals_are_named_where_a_file_is_missing(tmp_path, file, sentence):
    folder = hand_in(tmp_path / "in", SOLUTION, "EX07_providers.py", ex01_export="")
    (folder / "ex04_inference.py").symlink_to(ROOT / "solutions" / "ex04_inference.py")
    assert taken_over(folder, tmp_path / "work").lacks([file]) == f"{NOTHING}{file}.{sentence}"
