"""Draws panels of lines into an SVG: `drawing.py OUT`, the panels as JSON on stdin. Runs in the plot environment."""

import json
import sys

from matplotlib import pyplot as plt
from matplotlib.ticker import ScalarFormatter

OURS = "modelhub"
COLUMNS = 2
MARKERS = "os^Dv<>p*hXPd"


def main(out):
    plt.rcParams |= {"svg.hashsalt": "modelhub", "font.size": 9}  # the same picture for the same figures
    panels = json.load(sys.stdin)
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(5.4 * columns, 3.6 * rows), squeeze=False, layout="constrained")
    labels = sorted({label for panel in panels for label in panel["lines"]}, key=lambda label: (label != OURS, label))
    kinds = list(dict.fromkeys(label.partition("-")[0] for label in labels if label != OURS))
    styles = {label: style(kinds, label) for label in labels}
    for ax, panel in zip(axes.flat, panels, strict=False):
        for label, points in panel["lines"].items():
            ax.plot(*zip(*points, strict=True), label=label, **styles[label])
        ax.set(title=panel["title"], xlabel=panel["x"], ylabel=panel["y"])
        xs = sorted({point[0] for points in panel["lines"].values() for point in points})
        if panel["log_x"]:
            ax.set_xscale("log", base=2)
            if len(xs) <= 12:
                ax.set_xticks(xs)
            ax.xaxis.set_major_formatter(ScalarFormatter())
        if panel["log_y"]:
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter(ScalarFormatter())
        else:
            ax.set_ylim(0, 1.1 * max(point[1] for points in panel["lines"].values() for point in points))
        ax.grid(alpha=0.3)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    if len(labels) > 1:
        handles = {}
        for ax in axes.flat:
            handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        figure.legend([handles[label] for label in labels], labels, loc="outside lower center", ncols=3 * columns)
    figure.savefig(out, metadata={"Date": None})


def style(kinds, label):
    """One colour for each kind; what follows a dash, its variants, are broken lines of it."""
    if label == OURS:
        return {"color": "black", "linewidth": 2.4, "marker": "o", "zorder": 5}
    kind, _, variant = label.partition("-")
    number = kinds.index(kind)
    return {
        "color": f"C{number % 10}",
        "linewidth": 1.2,
        "linestyle": "--" if variant else "-",
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 4,
    }


if __name__ == "__main__":
    main(sys.argv[1])
