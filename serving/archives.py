"""The images in a zip archive that a stranger sent: read one by one in memory, never written to a path."""

import io
import os
import zipfile
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from serving import Problem

MAX_FILES = 1_000
MAX_FILE_BYTES = 10 * 2**20  # as much as /classify takes
MAX_TOTAL_BYTES = 256 * 2**20  # of all files, unpacked: what a bomb must stay under
# zipfile reads the table of contents whole and makes an object of each entry, 500,000 of them for 40 MB.
MAX_CONTENTS_BYTES = 2**20
# The others (bzip2, lzma) may ask for gigabytes of memory to unpack a few bytes; no ordinary tool writes them.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class BadArchive(Problem):
    """The archive cannot be classified; the message says why, for the caller."""


class BadFile(Problem):
    """One file of an archive cannot be read; the others can."""


class _SmallReads(io.FileIO):
    """A file that is read in small pieces only: zipfile reads an archive's table of contents in a single one."""

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > MAX_CONTENTS_BYTES:
            raise BadArchive(f"expected at most {MAX_FILES:,} files, got a table of contents of {size:,} bytes")
        return super().read(size)


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open an archive and check what it says of itself, before anything is unpacked.

    Raises BadArchive: not a whole zip file, no files in it, too many, or too large once unpacked.
    """
    if not path.is_file():
        raise BadArchive("expected an archive that is still kept, which it is until its task ends: submit it again")
    with ExitStack() as stack:
        try:
            archive = zipfile.ZipFile(stack.enter_context(_SmallReads(path)))
            files = images_in(archive)
        except BadArchive:
            raise
        except Exception as error:  # zipfile raises half a dozen kinds for a file that is not an archive
            size = path.stat().st_size
            raise BadArchive(f"expected a zip archive, but these {size:,} bytes are not one: {error}") from error
        total = sum(file.file_size for file in files)
        if not files:
            raise BadArchive("expected an archive with at least one image file, got one with none")
        if len(files) > MAX_FILES:
            raise BadArchive(f"expected at most {MAX_FILES:,} files, got {len(files):,}")
        if total > MAX_TOTAL_BYTES:
            raise BadArchive(f"expected at most {MAX_TOTAL_BYTES:,} bytes when unpacked, got {total:,}")
        stack.pop_all()  # the file stays open as long as the archive
    return archive


def images_in(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Its files, without folders and without what macOS and others hide there (.DS_Store, __MACOSX)."""

    def hidden(name: str) -> bool:
        return any(part.startswith((".", "__MACOSX")) and part != ".." for part in PurePosixPath(name).parts)

    return [file for file in archive.infolist() if not file.is_dir() and not hidden(file.filename)]


def read_file(archive: zipfile.ZipFile, file: zipfile.ZipInfo) -> bytes:
    """One file of the archive in memory; raises BadFile: encrypted, broken, too large, packed by another method."""
    if file.flag_bits & 1:
        raise BadFile("expected a file without a password, got an encrypted one")
    if file.compress_type not in METHODS:
        raise BadFile("expected a stored or deflated file, got another method of compression")
    if file.file_size > MAX_FILE_BYTES:
        raise BadFile(f"expected at most {MAX_FILE_BYTES:,} bytes, got {file.file_size:,}")
    try:
        with archive.open(file) as packed:
            unpacked = packed.read(MAX_FILE_BYTES + 1)  # what an archive says of its sizes may be a lie
    except Exception as error:  # zlib and zipfile raise whatever they stumble over
        raise BadFile(f"expected a whole file, but it is damaged: {error}") from error
    if len(unpacked) > MAX_FILE_BYTES:
        raise BadFile(f"expected at most {MAX_FILE_BYTES:,} bytes, got more")
    return unpacked
