"""The pages of metric cards: the list of all, and one page each with everything that decides what the score means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.inputs.names import safe_name
from mvv.leaderboard.entries import Entry
from mvv.leaderboard.figures import aim, title_text
from mvv.pages.blocks import facts_list, section, table
from mvv.pages.markup import Html, element, join

__all__ = ["CardPage", "card_pages", "metrics_page"]

_DIRECTIONS = {True: "higher is better", False: "lower is better", None: "neither direction is better"}
_LEVELS = {"video": "each video", "object": "each object, over all its views", "set": "the whole set"}


@dataclass(frozen=True, kw_only=True)
class CardPage:
    """A card with the weights that it ran with, and who used it.

    Attributes:
        name: ``id@version``.
        hash: of card and weights.
        card: all its fields.
        weights: name -> SHA-256.
        users: runs that scored with it.
    """

    name: str
    hash: str
    card: Mapping[str, Any]
    weights: Mapping[str, str]
    users: tuple[Entry, ...]

    @property
    def page(self) -> str:
        """Address relative to the site."""
        return f"metrics/{safe_name(self.name.replace('@', '-'))}-{safe_name(self.hash[:8])}.html"

    def body(self) -> Html:
        """Header and main of its page."""
        card = self.card
        facts = [
            ("Name", element("code", self.name)),
            ("Direction", _DIRECTIONS[card["higher_is_better"]]),
            ("Range", _range(card)),
            ("In tables", f"×{card['scale']:g}, {card['decimals']} digits after the point"),
            ("One value for", _LEVELS.get(card["level"], card["level"])),
            ("Needs", ", ".join(["frames", *card["needs"]]) + f"; at least {card['min_frames']} of a video"),
            ("Backbone", card["backbone"]),
            ("Preprocess", card["preprocess"]),
            ("Source", card["source"]),
            ("Hash", element("code", self.hash)),
        ]
        weights = [(element("code", name), element("code", sha)) for name, sha in sorted(self.weights.items())]
        main = [
            section("Formula", element("pre", card["formula"], class_="formula")),
            section("What it is", facts_list(facts)),
            section("Known failure modes", element("ul", *(element("li", text) for text in card["failure_modes"]))),
            section("Weights", table(["Name", "SHA-256"], weights) if weights else element("p", "None: no network.")),
            section("Runs with this card", _links(self.users, "../")),
        ]
        top = [element("p", self.name, class_="eyebrow mono"), element("h1", card["title"], " ", aim(card))]
        return join([element("header", *top, class_="top inner"), element("main", *main)])


def card_pages(entries: Sequence[Entry]) -> list[CardPage]:
    """Every card that a run used, by name; one of other weights or another text is a page of its own."""
    found: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        for name, used in entry.run.info["cards"].items():
            found.setdefault((name, used["hash"]), []).append(entry)
    pages = []
    for (name, digest), users in sorted(found.items(), key=lambda pair: pair[0]):
        used = users[0].run.info["cards"][name]
        pages.append(CardPage(name=name, hash=digest, card=used["card"], weights=used["weights"], users=tuple(users)))
    return pages


def metrics_page(pages: Sequence[CardPage]) -> Html:
    """The list of all cards: header and main."""
    rows = [
        (
            element("a", title_text(page.card), href=page.page),
            element("code", page.name),
            join([aim(page.card), " ", _DIRECTIONS[page.card["higher_is_better"]]]),
            _range(page.card),
            ", ".join(sorted(page.weights)) or "none",
            str(len(page.users)),
            element("code", page.hash[:12]),
        )
        for page in pages
    ]
    lede = (
        "Every score belongs to a card. Two scores can be compared only where the hashes of their cards agree:"
        " definition, preprocess and the bytes of the weights."
    )
    top = element("header", element("h1", "Metrics"), element("p", lede, class_="lede"), class_="top inner")
    heads = ["Metric", "Card", "Direction", "Range", "Weights", "#Runs", "Hash"]
    return join([top, element("main", element("section", table(heads, rows)))])


def _range(card: Mapping[str, Any]) -> str:
    low, high = card["low"], card["high"]
    if low is None and high is None:
        return "unbounded"
    if high is None:
        return f"from {low:g}"
    return f"up to {high:g}" if low is None else f"{low:g} to {high:g}"


def _links(entries: Sequence[Entry], root: str) -> Html:
    items = [element("li", element("a", entry.method, href=root + entry.page)) for entry in entries]
    return element("ul", *items, class_="plain")
