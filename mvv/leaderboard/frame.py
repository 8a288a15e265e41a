"""What all pages of the site have in common: head, navigation and foot."""

from __future__ import annotations

from dataclasses import dataclass

from mvv.pages.blocks import POLICY
from mvv.pages.markup import Html, element, fill, join

__all__ = ["Frame"]

_PAGES = {"index.html": "", "how-to-read.html": "How to read this", "metrics.html": "Metrics"}


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Puts a body into a page.

    Attributes:
        title: of the site.
    """

    title: str

    def page(self, title: str, body: Html, *, root: str, here: str = "") -> Html:
        """A whole page.

        Args:
            title: of the window.
            body: header and main.
            root: way from the page to the site, ``""`` or e.g. ``../``.
            here: address of the page, where it is one of the navigation.
        """
        links = [
            element("a", text or self.title, href=root + address, aria_current="page" if address == here else None)
            for address, text in _PAGES.items()
        ]
        return fill("mvv.leaderboard", "page.html", policy=POLICY, title=title, root=root, nav=join(links), body=body)
