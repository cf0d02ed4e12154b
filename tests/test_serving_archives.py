"""Zip archives that lie about what is in them: serving/archives.py."""

import io
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from serving.archives import BadArchive, BadFile, images_in, open_archive, read_file


def packed(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_files_are_read_without_folders_and_hidden_ones(tmp_path):
    files = {"a/b.png": b"one", "a/": b"", ".hidden": b"", "__MACOSX/b.png": b"", "../../c.png": b"two"}
    with open_archive(packed(tmp_path / "a.zip", files)) as archive:
        assert [(file.filename, read_file(archive, file)) for file in images_in(archive)] == [
            ("a/b.png", b"one"),
            ("../../c.png", b"two"),
        ]


def test_a_huge_table_of_contents_is_not_read(tmp_path):
    path = packed(tmp_path / "a.zip", {f"{i:0100}": b"" for i in range(20_000)})
    tracemalloc.start()
    with pytest.raises(BadArchive, match="table of contents"):
        open_archive(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_a_file_that_unpacks_into_more_than_it_says_is_refused(tmp_path):
    data = bytearray(packed(tmp_path / "a.zip", {"a.bmp": bytes(20 * 2**20)}).read_bytes())
    real, claimed = (20 * 2**20).to_bytes(4, "little"), (1000).to_bytes(4, "little")
    assert data.count(real) == 2  # in the file's own header, and in the table of contents
    (tmp_path / "a.zip").write_bytes(data.replace(real, claimed))
    with open_archive(tmp_path / "a.zip") as archive, pytest.raises(BadFile, match="expected"):
        read_file(archive, images_in(archive)[0])


def test_other_methods_are_refused(tmp_path):
    path = packed(tmp_path / "a.zip", {"a.png": b"x"}, zipfile.ZIP_LZMA)
    with open_archive(path) as archive, pytest.raises(BadFile, match="stored or deflated"):
        read_file(archive, images_in(archive)[0])


def test_sixty_four_bit_archives_are_read(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("a.png", "w", force_zip64=True) as file:
        file.write(b"x")
    (tmp_path / "a.zip").write_bytes(buffer.getvalue())
    with open_archive(tmp_path / "a.zip") as archive:
        assert read_file(archive, images_in(archive)[0]) == b"x"
