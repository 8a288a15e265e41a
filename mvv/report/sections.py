"""The sections of a report about the whole dataset: figures, cameras, motion, licences, refusals, times, provenance."""

from __future__ import annotations

import json
from collections.abc import Sequence

from manifests.dataset import Dataset
from mvv.pages.blocks import facts_list, figure, section, table
from mvv.pages.markup import Html, element, join
from mvv.pages.wording import NOT_STATED, duration_text, plural
from mvv.report.cards import Cameras
from mvv.report.charts import camera_plots, histogram
from mvv.report.facts import Facts, Refusal

__all__ = ["numbers", "sections"]


def numbers(facts: Facts) -> Html:
    """MV-Video's statistics table, and what this dataset has besides."""
    counts = facts.counts
    per_model = counts["animations_per_model"]
    rows = [
        ("Models", f"{counts['models']:,}"),
        ("Animations", f"{counts['animations']:,}"),
        ("Mean per model", f"{per_model['mean']:.2f}"),
        ("Most per model", f"{per_model['max']:,}"),
        ("Multi-view videos", f"{counts['multi_view_videos']:,}"),
        ("Images", f"{counts['images']:,}"),
    ]
    return element(
        "dl", *(element("div", element("dt", name), element("dd", value)) for name, value in rows), class_="numbers"
    )


def sections(dataset: Dataset, facts: Facts, cameras: Sequence[Cameras]) -> Html:
    """Everything below the gallery: cameras, motion, licences, what was refused, what failed, timings, provenance."""
    parts = [_camera_section(cameras), _motion_section(facts), _licence_section(facts), _refused_section(facts)]
    return join([*parts, _failed_section(facts), _timing_section(facts), _about_section(dataset)])


def _camera_section(cameras: Sequence[Cameras]) -> Html:
    if not cameras:
        return Html("")
    first, *rest = cameras
    others = [camera for clip in rest for camera in clip.named]
    plan, elevation = camera_plots(others, first.named, first.front_azimuth_deg, first.fov_y_deg)
    also = f"; dots: {plural(len(rest), 'more clip')}" if rest else ""
    return section(
        "Cameras",
        element(
            "div",
            figure(
                plan,
                f"From above: the first clip’s cameras, field of view{also}. The circle is the object’s sphere.",
            ),
            figure(elevation, "By elevation: distance from the vertical axis to the right, height upwards."),
            class_="pair",
        ),
    )


def _motion_section(facts: Facts) -> Html:
    if not facts.counts["clips"]:
        return Html("")
    titles = {
        "motion_mean_displacement": "Mean distance of a vertex from its place in frame 0, radii of the clip’s sphere",
        "motion_mean_speed": "Mean speed of a vertex, radii a second",
    }
    charts = [figure(histogram(bins, titles[name]), f"{titles[name]}; clips.") for name, bins in facts.motion.items()]
    return section("Motion", element("div", *charts, class_="pair"))


def _licence_section(facts: Facts) -> Html:
    rows = [(name or NOT_STATED, f"{models:,}", f"{clips:,}") for name, (models, clips) in facts.licenses.items()]
    if not rows:
        return Html("")
    return section("Licences", table(["Licence of the assets", "#Models", "#Clips"], rows))


def _refused_section(facts: Facts) -> Html:
    if not facts.rejected:
        return section("Rejected", element("p", "Nothing was rejected."))
    return section(
        "Rejected", table(["Reason", "Level", "#Rows"], [_refused_row(refusal) for refusal in facts.rejected])
    )


def _refused_row(refusal: Refusal) -> tuple[Html, str, str]:
    lines = [element("span", f"{who}: {detail}", class_="detail") for who, detail in refusal.examples]
    if refusal.rows > len(lines):
        lines.append(element("span", f"and {refusal.rows - len(lines):,} more in the tables", class_="detail"))
    example = element("details", element("summary", refusal.meaning or "examples"), *lines)
    return join([element("code", refusal.reason, class_="badge"), example]), refusal.level, f"{refusal.rows:,}"


def _failed_section(facts: Facts) -> Html:
    if not facts.failed:
        return section("Failed", element("p", "Nothing failed."))
    rows = []
    for failure in facts.failures:
        log = (
            element("details", element("summary", "last log lines"), element("pre", failure["log"]))
            if failure["log"]
            else ""
        )
        what = join([element("span", failure["said"] or failure["meaning"]), log])
        rows.append((element("code", failure["cause"], class_="badge", title=failure["meaning"]), failure["who"], what))
    more = facts.failed - len(rows)
    note = (
        element("p", f"The first {len(rows)} of {facts.failed:,}; the rest is in clips.parquet.", class_="note")
        if more
        else ""
    )
    again = element(
        "p",
        "Failures are of machines, not of assets; ",
        element("code", "--retry-failed"),
        " tries them again.",
        class_="lede",
    )
    return section("Failed", note, table(["Cause", "Clip or asset", "What happened"], rows), again)


def _timing_section(facts: Facts) -> Html:
    bins = facts.seconds
    if not bins.total:
        return Html("")
    rows = [
        ("Images a second of one worker", f"{facts.images_per_second:.2f}"),
        ("Seconds a clip, median", f"{bins.quantile(0.5):.3g}"),
        ("Seconds a clip, 95th percentile", f"{bins.quantile(0.95):.3g}"),
        ("Rendering in all", duration_text(bins.total)),
        ("Clips that needed a second attempt", f"{facts.retried:,}"),
    ]
    chart = figure(histogram(bins, "Render time of a clip, seconds"), "Render time of a clip, seconds; clips.")
    return section("Timings", element("div", facts_list(rows), chart, class_="pair"))


def _about_section(dataset: Dataset) -> Html:
    manifest = dataset.manifest
    tools = ", ".join(f"{name} {version}" for name, version in manifest.get("tools", {}).items())
    modalities = ", ".join(manifest.get("modalities", {}))
    rows = [
        ("Fingerprint", element("code", manifest["fingerprint"])),
        ("Config", element("code", manifest.get("config_sha256", ""))),
        ("Tools", tools),
        ("Modalities", modalities),
        ("Splits", ", ".join(f"{name} {clips:,}" for name, clips in manifest["counts"]["splits"].items())),
    ]
    config = json.dumps(manifest.get("config", {}), indent=1, ensure_ascii=False)
    details = element("details", element("summary", "The whole config"), element("pre", config))
    return section("How it was made", facts_list(rows), details)
