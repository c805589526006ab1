"""Figures for people: a Markdown table, a picture, and the parts of pages that are written anew from them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rounds import JOBS

SKIP_PICTURE = "no picture: install the group with `pip install --group bench`"
INK, OURS, FLOOR, PEER = "#333333", "#1b7f5c", "#9aa5a0", "#c8862a"


def about_lines(about: Mapping[str, Any]) -> list[str]:
    """What the figures were measured on, a line each."""
    return [f"- {name}: {value}" for name, value in about.items()]


def table(rows: Sequence[Mapping[str, Any]], start_up: Mapping[str, float]) -> str:
    """Medians as a Markdown table."""
    columns = (
        "seconds",
        "logs/s",
        "blocks/s",
        "CPU s",
        "node + database CPU s",
        "peak MB",
        "MB asked for",
        "start-up s",
    )
    lines = [f"| job | program | {' | '.join(columns)} |", "|---|---" + "|--:" * len(columns) + "|"]
    for row in rows:
        name = f"{row['program']} → {row['sink']}"
        started = f"{start_up[name]:.2f}" if name in start_up else ""
        asked = f"{(row['served'].get('bytes') or 0) / 1e6:.0f}"
        beside = " + ".join(f"{value:.2f}" for value in row["beside_cpu_seconds"].values())
        lines.append(
            f"| {JOBS[row['job']]} | {name} | {row['wall_seconds']:.2f} | {row['logs_per_second']:,} "
            f"| {row['blocks_per_second']:,} | {row['cpu_seconds']:.2f} | {beside} | {row['peak_mb']:.0f} | {asked} "
            f"| {started} |"
        )
    return "\n".join(lines)


def ratio_table(found: Sequence[Mapping[str, Any]]) -> str:
    """How many times faster, pair by pair."""
    lines = ["| job | of ours | so many times as fast as | median | least | most | by CPU time | pairs |"]
    lines.append("|---|---|---|--:|--:|--:|--:|--:|")
    for pair in found:
        figures = " | ".join(f"{pair[name]:.2f}" for name in ("times_faster", "least", "most", "times_less_cpu"))
        lines.append(f"| {JOBS[pair['job']]} | {pair['ours']} | {pair['peer']} | {figures} | {pair['pairs']} |")
    return "\n".join(lines)


def absent_lines(absent: Mapping[str, str]) -> list[str]:
    return [f"- {name} was left out: {' '.join(why.split())[:300]}" for name, why in absent.items()]


def replace_part(page: Path, name: str, text: str) -> None:
    """Write the part of a page between `<!-- name -->` and `<!-- /name -->` anew."""
    before = page.read_text()
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    after, count = pattern.subn(lambda match: f"{match[1]}{text.strip()}\n{match[2]}", before)
    if count != 1:
        raise ValueError(f"{page} does not have exactly one part {name!r}")
    page.write_text(after)


# --- pictures ------------------------------------------------------------------------------------------------------


def plotting() -> Any:
    """matplotlib's pyplot, drawing into files; None where it is not installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        return None
    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "gapless", "font.size": 9, "axes.edgecolor": INK})
    import matplotlib.pyplot as plt

    return plt


def save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")


def bars(rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any], path: Path) -> bool:
    """Logs per second of every contender, a panel for each job, on a logarithmic scale. False without matplotlib."""
    plt = plotting()
    if plt is None:
        return False
    jobs = [job for job in JOBS if any(row["job"] == job for row in rows)]
    heights = [sum(row["job"] == job for row in rows) for job in jobs]
    figure, axes = plt.subplots(
        len(jobs), 1, figsize=(8, 0.9 + 0.34 * sum(heights)), sharex=True, squeeze=False, height_ratios=heights
    )
    for job, (axis,) in zip(jobs, axes, strict=True):
        some = [row for row in rows if row["job"] == job][::-1]
        rates = [row["logs_per_second"] for row in some]
        drawn = axis.barh([f"{r['program']} → {r['sink']}" for r in some], rates, color=[_colour(r) for r in some])
        axis.bar_label(drawn, labels=[f" {rate:,}" for rate in rates], fontsize=8)
        axis.set_xscale("log")
        axis.set_title(JOBS[job], loc="left", fontsize=9, fontweight="bold")
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        axis.margins(x=0.12)
    axes[-1][0].set_xlabel(f"logs per second, whole process. {about.get('machine', '')}, {about.get('date', '')}")
    figure.tight_layout()
    save(figure, path)
    plt.close(figure)
    return True


def _colour(row: Mapping[str, Any]) -> str:
    if row["program"].startswith("gapless"):
        return OURS
    return FLOOR if row["program"].startswith("stripped") else PEER
