"""AUDIT.md, made of the rows of audit.py. Helper module, not a command."""

from __future__ import annotations

from typing import Any

import pages
from intervals import exact


def attack_lines(rows: list[dict[str, Any]]) -> list[list[str]]:
    """One line per kind of images, half and rate: what became of the attacks."""
    groups: dict[tuple[str, ...], list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for row in rows:
        kind, half, _, rate, _ = row["name"].split()
        for attack in row["attacks"]:
            learned = "0.9 or more" if attack["success"] >= 0.9 else "less"
            seen = "yes" if half == "0" or attack["tuned"] else "no"
            groups.setdefault((kind, seen, rate, learned), []).append((row, attack))
    lines = []
    for key, attacks in sorted(groups.items()):
        bad = sum(attack["bad"] for _, attack in attacks)
        right = sum(attack["right"] for _, attack in attacks)
        flagged = sum(attack["flagged"] for _, attack in attacks)
        named = sum(attack["named"] for _, attack in attacks)
        met = sum(
            attack["right"] >= 0.9 * attack["bad"] and attack["right"] >= 0.6 * attack["flagged"]
            for _, attack in attacks
        )
        precision = f"{right / flagged:.2f}" if flagged else "nothing flagged"
        line = [str(len(attacks)), str(named), f"{right / bad:.2f}", precision, exact(met, len(attacks))]
        lines.append([*key, *line])
    return lines


def ranking_lines(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Mean recall among the first 1.5 n: ours and the rivals', by kind and rate."""
    groups: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for row in rows:
        kind, _, _, rate, _ = row["name"].split()
        means = groups.setdefault((kind, rate), {})
        means.setdefault("ours, not told the class", []).append(row["ranking"])
        for method, values in row["rivals"].items():
            means.setdefault(method, []).extend(values)
    return [
        [*key, method, f"{sum(values) / len(values):.2f}", f"{min(values):.2f}"]
        for key, means in sorted(groups.items())
        for method, values in means.items()
    ]


def page(rows: list[dict[str, Any]]) -> str:
    """AUDIT.md."""
    poisoned = [row for row in rows if row["attacks"]]
    clean, noisy = ([r for r in rows if f" {what} " in r["name"]] for what in ("clean", "wrong labels"))
    alarms = []
    for kind in ("photographs", "drawings"):
        of = [row for row in clean if row["name"].startswith(kind)]
        if of:
            alarms.append(f"{kind}: {exact(sum(bool(row['findings']) for row in of), len(of))}")
    wrongly = [f"{row['name']}: {', '.join(row['findings'])}" for row in clean if row["findings"]]
    missed = [
        f"{row['name']}: {attack['trigger']}, {attack['pair']}, success rate {attack['success']:.2f}: "
        f"{attack['right']} of {attack['bad']} flagged, {attack['flagged']} flagged in the class"
        for row in poisoned
        for attack in row["attacks"]
        if attack["right"] < 0.9 * attack["bad"] or attack["right"] < 0.6 * attack["flagged"]
    ]
    return pages.render(
        "audit.md.jinja",
        rows=rows,
        attacks=attack_lines(poisoned),
        rankings=ranking_lines(poisoned),
        first=exact(sum(row["ranking"] >= 0.95 for row in poisoned), len(poisoned)) if poisoned else "none",
        alarms=alarms,
        wrongly=wrongly,
        missed=missed,
        noisy=noisy,
    )
