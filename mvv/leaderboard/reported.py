"""What papers report, in tables of their own as printed: never ranked, never in one table with what was measured."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from eval.reported import Reported, reported_note, reported_rows
from mvv.leaderboard.board import head_cell
from mvv.pages.markup import Html, element, join
from mvv.pages.wording import plural

__all__ = ["reported_part"]

_READ = {"paper": "read in the paper", "digest": "read in a digest of the paper"}


def reported_part(protocols: Collection[str]) -> Html:
    """Every published table, as printed: those closest to the site's protocols first, the others folded away.

    Args:
        protocols: names of those that the site's own tables follow.
    """
    tables: dict[tuple[str, ...], list[Reported]] = {}
    for row in reported_rows():
        tables.setdefault((row.paper, row.arxiv, row.table, row.set), []).append(row)
    if not tables:
        return Html("")
    near = [_table(rows) for rows in tables.values() if rows[0].protocol in protocols]
    far = [_table(rows) for rows in tables.values() if rows[0].protocol not in protocols]
    note = [element("h2", "Reported by papers"), element("p", reported_note(), class_="note")]
    folded = ""
    if far:
        told = f"{plural(len(far), 'table')} of other protocols"
        folded = element("details", element("summary", told, class_="head"), *far, data_holds="")
    return element("section", *note, *near, folded, class_="reported", data_holds="")


def _table(rows: Sequence[Reported]) -> Html:
    """One published table: a row a method, a column a metric, digits and errors as printed."""
    first = rows[0]
    metrics = list(dict.fromkeys(row.metric for row in rows))
    methods = list(dict.fromkeys(row.method for row in rows))
    of = {(row.method, row.metric): row for row in rows}
    heads = [head_cell("Method", "text")]
    heads += [
        head_cell(name, "descending", small=next((row.card for row in rows if row.metric == name), "") or "no card")
        for name in metrics
    ]
    lines = []
    for method in methods:
        name = join([element("div", method, class_="method"), element("span", "reported", class_="mark")])
        cells = [_cell(of.get((method, metric))) for metric in metrics]
        label = element("td", name, data_value=method, data_text="1")
        lines.append(element("tr", label, *cells, data_name=method.lower(), data_kind="reported", data_ranked=0))
    table = element("table", element("thead", element("tr", *heads)), element("tbody", *lines), class_="board printed")
    title = element("h3", first.set)
    return element(
        "section", title, _source(first), element("div", table, class_="scroll"), class_="table", data_holds=""
    )


def _cell(row: Reported | None) -> Html:
    if row is None:
        return element("td", element("span", "–", class_="none"), class_="n")
    error = element("span", f"±\u2009{row.error}", class_="interval") if row.error else ""
    return element("td", element("span", row.value, class_="score"), error, class_="n", data_value=repr(row.score))


def _source(row: Reported) -> Html:
    paper = (
        element("a", row.paper, href=f"https://arxiv.org/abs/{row.arxiv}", rel="noopener noreferrer")
        if row.arxiv
        else row.paper
    )
    facts = [row.table, _READ.get(row.read, row.read), f"printed ×{row.scale:g}" if row.scale != 1 else ""]
    if row.error_meaning:
        facts.append(f"± {row.error_meaning}")
    told = join([paper, "; ", "; ".join(filter(None, facts)), ". ", row.note])
    return element("p", told, class_="scope")
