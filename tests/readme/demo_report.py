#!/usr/bin/env python3
"""Checks the document that `refrain demo --once --json` prints.

    demo_report.py FILE [--beats-popularity]
"""

import argparse
import json
import sys


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--beats-popularity", action="store_true")
    args = parser.parse_args()
    with open(args.file) as f:
        report = json.load(f)

    wrong = []

    def check(ok, what):
        if not ok:
            wrong.append(what)

    for key in ("users", "items", "events"):
        check(report["counts"][key] > 0, f"counts.{key} is {report['counts'][key]}")
    check(report["steps"] and all(s["seconds"] >= 0 and s["name"] for s in report["steps"]), "steps")
    check(report["index"]["recall_at_10"] >= 0.95, f"index.recall_at_10 is {report['index']['recall_at_10']}")
    for who in ("model", "popularity"):
        for figure in ("recall_at_20", "ndcg_at_20"):
            check(0 <= report[who][figure] <= 1, f"{who}.{figure} is {report[who][figure]}")
    for figure in ("list_changed", "bit_equal", "undo_identical"):
        check(report["exclusion"][figure] is True, f"exclusion.{figure} is {report['exclusion'][figure]}")
    check(len(report["variants"]) >= 2 and all(v["name"] and v["items"] for v in report["variants"]), "variants")
    better = [report["model"][f] > report["popularity"][f] for f in ("recall_at_20", "ndcg_at_20")]
    check(all(better) or not args.beats_popularity, "the model does not beat popularity on held-out listens")

    print(
        f"{report['source']}: {report['counts']['events']:,} events, index recall@10 {report['index']['recall_at_10']:.4f}, "
        f"Recall@20 {report['model']['recall_at_20']:.4f} (popularity {report['popularity']['recall_at_20']:.4f}), "
        f"NDCG@20 {report['model']['ndcg_at_20']:.4f} (popularity {report['popularity']['ndcg_at_20']:.4f}), "
        f"{sum(s['seconds'] for s in report['steps']):.1f} s"
    )
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
