"""Reading pages of a report: text, links and pictures, without a browser."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What a page holds.

    Args:
        path: of the page.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.links, self.ids, self.tags, self.alts = path, [], set(), [], []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.links += [found[key] for key in ("href", "src") if key in found]
        self.ids |= {found["id"]} if "id" in found else set()
        if tag == "img":
            self.alts.append(found.get("alt"))

    def handle_data(self, data):
        self.text += data


def broken_links(path: Path) -> list[str]:
    """Links of a page that lead nowhere, or out of the machine."""
    page, found = Page(path), []
    for link in page.links:
        parts = urlsplit(link)
        if parts.scheme == "data":
            continue
        target = (path.parent / unquote(parts.path, errors="surrogateescape")) if parts.path else path
        outside = bool(parts.scheme or parts.netloc or parts.path.startswith("/"))
        if outside or not target.exists() or (parts.fragment and parts.fragment not in Page(target).ids):
            found.append(link)
    return found
