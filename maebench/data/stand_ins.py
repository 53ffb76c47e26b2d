"""What a file is that stands where another was wanted: a pointer, a web page, another format."""

from __future__ import annotations

import html
import re
from pathlib import Path

HEAD = 4096  # bytes that are looked at; the title of a page stands there
PAGES = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html|head|body|\?xml|!--)", re.IGNORECASE)
# Kinds of images that PIL does not read, by what stands where in their first bytes.
OTHER_IMAGES = (
    (4, b"ftyphei", "a HEIF image", "convert it"),  # heic, heix, heim, heis: what iPhones take
    (4, b"ftyphev", "a HEIF image", "convert it"),
    (4, b"ftypmif1", "a HEIF image", "convert it"),
    (4, b"JXL ", "a JPEG XL image", "convert it"),
    (0, b"\xff\x0a", "a JPEG XL image", "convert it"),
    (0, b"%PDF", "a PDF", "draw its pages first"),
    (0, b"PK\x03\x04", "a ZIP archive", "unpack it"),
    (0, b"\x1f\x8b", "compressed by gzip", "unpack it"),
)
ARCHIVES = tuple(".zip .tar .gz .tgz .bz2 .xz .zst .7z .rar".split())


def is_archive(path: Path) -> bool:
    """Whether a file is an archive by its suffix, such as a data set that nobody unpacked."""
    return path.name.lower().endswith(ARCHIVES) and path.is_file()


def no_image(path: Path) -> str:
    """What a file is that PIL does not know as an image, and what to do; empty where unknown."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return ""
    if not head.strip(b"\0"):
        return "it is empty" if not head else "it holds zeros alone, as a broken download does"
    for start, mark, what, advice in OTHER_IMAGES:
        if head[start:].startswith(mark):
            return f"it is {what}: {advice}"
    if head.lstrip()[:1] == b"<" and b"<svg" in head and b"<html" not in head.lower():
        return "it is a drawing (SVG): draw it first"
    found = pointer(head) or page(head)
    return f"it is {found[0]}: {found[1]}" if found else ""


def pointer(head: bytes) -> tuple[str, str] | None:
    """What stands in a checkout in place of a large file that was not fetched."""
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        size = re.search(rb"^size (\d+)", head, re.MULTILINE)
        of = f" to {int(size[1]):,} bytes" if size else ""
        return f"a Git LFS pointer{of} that were not fetched", "git lfs pull fetches them"
    if head.startswith(b"/annex/objects/"):
        return "a git-annex pointer to a file that was not fetched", "git annex get fetches it"
    return None


def page(head: bytes) -> tuple[str, str] | None:
    """A web page, which a server sends in place of a file that it does not give."""
    if not PAGES.match(head):
        return None
    title = re.search(rb"<title[^>]*>(.*?)</title>", head, re.IGNORECASE | re.DOTALL)
    words = html.unescape(title[1].decode("utf-8", "replace")) if title else ""
    named = f" ({' '.join(words.split())[:80]!r})" if words.strip() else ""
    kind = "an XML page" if b"<?xml" in head[:32].lower() and not title else "an HTML page"
    return f"{kind}{named}", "the server sent it in place of the file; download it again"
