#!/usr/bin/env python3
"""Recall against queries a second, as an SVG, of what a run of the peers' harness wrote.

    plot.py RUN.json OUT.svg

Up and to the right is better. One line a library, its Pareto frontier; medians of the rounds, one thread. Only the
standard library is needed; the same run gives the same bytes. Lines differ by colour, by dash and by their name at the
end, so it reads on paper, too.
"""

import argparse
import html
import json
import math
import pathlib
import statistics

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 92, 130, 40, 50
# Okabe and Ito: told apart by people who see few colours.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f"]
DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 2", "1 2", "12 4", "6 2 2 2"]
RECALLS = [0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999]


def frontier(points):
    """What no other point beats in both, by rising recall, up to the first past the end of the axis."""
    past = [recall for recall, _ in points if recall >= RECALLS[-1]]
    points = [point for point in points if point[0] <= min(past, default=1)]
    best, kept = 0.0, []
    for recall, qps in sorted(points, reverse=True):
        if qps > best:
            kept.append((recall, qps))
            best = qps
    return kept[::-1]


def lines(run):
    found = {}
    for name, peer in run["peers"].items():
        points = []
        for point in peer.get("points", []):
            timed = point.get("qps1") or point.get("qps")
            if timed and point["recall"] >= RECALLS[0]:
                points.append((point["recall"], statistics.median(timed) if isinstance(timed, list) else timed))
        if points:
            found[name] = frontier(points)
    # Ours first: it is drawn last, on top.
    return dict(sorted(found.items(), key=lambda line: (line[0] != "refrain", line[0])))


def across(recall):
    """Recall as what is missed, on a log scale: 0.99 is as far from 0.9 as 0.999 from 0.99."""
    ends = [-math.log10(1 - at) for at in (RECALLS[0], RECALLS[-1])]
    share = (-math.log10(max(1 - recall, 1 - RECALLS[-1])) - ends[0]) / (ends[1] - ends[0])
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()
    run = json.loads(args.run.read_text())
    drawn = lines(run)
    if not drawn:
        raise SystemExit(f"{args.run}: no library reached recall {RECALLS[0]}")
    rates = [qps for line in drawn.values() for _, qps in line]
    low, high = math.floor(math.log10(min(rates))), math.ceil(math.log10(max(rates)))

    def up(qps):
        share = (math.log10(qps) - low) / (high - low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    at = run["set"]
    title = f"{at['name']}: {at['n']:,} × {at['d']}, {at['metric']}, one thread, {run['date'][:10]}"
    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f"<title>{html.escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="22" font-size="14" font-weight="bold">{html.escape(title)}</text>',
    ]
    for recall in RECALLS:
        x = across(recall)
        svg.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        svg.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{recall}</text>')
    for power in range(low, high + 1):
        for step in (1, 2, 5):
            qps = step * 10**power
            if qps > 10**high:
                break
            y = up(qps)
            svg.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#{"bbb" if step == 1 else "eee"}"/>')
            svg.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{qps:,}</text>')
    svg.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 12}" text-anchor="middle">recall@10 against exact search</text>')
    svg.append(f'<text transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)" text-anchor="middle">queries a second</text>')
    labels = []
    for number, (name, line) in reversed(list(enumerate(drawn.items()))):
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
        path = " ".join(f"{across(recall):.1f},{up(qps):.1f}" for recall, qps in line)
        width = 3 if name == "refrain" else 1.8
        svg.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-dasharray="{dash}"/>')
        labels.append([up(line[-1][1]), across(line[-1][0]), name, colour])
    # Names beside the ends of the lines, moved apart.
    labels.sort()
    for above, label in zip(labels, labels[1:]):
        label[0] = max(label[0], above[0] + 15)
    for y, x, name, colour in labels:
        weight = "bold" if name == "refrain" else "normal"
        svg.append(f'<text x="{x + 6:.1f}" y="{y + 4:.1f}" fill="{colour}" font-weight="{weight}">{html.escape(name)}</text>')
    args.out.write_text("\n".join(svg) + "\n</svg>\n")


if __name__ == "__main__":
    main()
