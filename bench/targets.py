"""What DESIGN asks of the figures, judged: each target with the ratio that was measured and its limit."""

import re

from bench.programs import PARTS

Found = dict[tuple, dict]  # records of one size by (column, cell, side, part)
LARGE = "(64, 131072) float32"
NAMES = {"value": "value", "q": "value and gradient in q", "p and q": "value and gradient in both"}
FUSED = ("torch", "torch.compile", "liger")


def size(record: dict) -> str:
    """As it is printed."""
    return f"({record['rows']}, {record['outcomes']}) {record['dtype']}"


def by_size(records: list[dict]) -> dict[tuple[str, str], Found]:
    """Records by suite and size, then by what they are of."""
    found: dict[tuple[str, str], Found] = {}
    for r in records:
        if "ms" in r and r["suite"] != "heads":
            found.setdefault((r["suite"], size(r)), {})[r["column"], r["cell"], r["side"], r["part"]] = r
    return found


def _slower(found: Found, column: str, cell: str, side: str, part: str) -> float | None:
    """kljax's time over that of another, None where one was not measured."""
    ours, theirs = (found.get((column, cell, s, part)) for s in ("kljax", side))
    return ours["ms"][1] / theirs["ms"][1] if ours and theirs else None


def _at_most(what: str, ratio: float, limit: float) -> dict:
    return {"what": what, "ratio": ratio, "limit": limit, "met": ratio <= limit}


def _at_least(what: str, ratio: float, limit: float) -> dict:
    return {"what": what, "ratio": ratio, "limit": limit, "met": ratio >= limit}


def _kl(found: Found) -> list[dict]:
    """logits.kl at the large size against the composite of optax."""
    judged = []
    for part, limit in (("value", 3.0), ("q", 1.3)):
        if slower := _slower(found, "logits", "kl", "optax", part):
            judged.append(_at_least(f"logits.kl {LARGE}, {NAMES[part]}: times faster than optax", 1 / slower, limit))
    if judged:
        ours, theirs = (found["logits", "kl", side, "value"]["temp_mb"] for side in ("kljax", "optax"))
        judged.append(_at_most(f"logits.kl {LARGE}, value: temporary memory over optax's", ours / theirs, 0.1))
    return judged


def _by_hand(found: Found, where: str) -> list[dict]:
    """Every cell against the formula by hand."""
    judged = []
    for column, cell, side, part in found:
        if side != "kljax" or (column, cell, where, part) in {("logits", "kl", LARGE, p) for p in PARTS[:2]}:
            continue
        if slower := _slower(found, column, cell, "textbook", part):
            what = f"{column}.{cell} {where}, {NAMES[part]}: time over the textbook's"
            judged.append(_at_most(what, slower, 1.5 if column == "probs" else 1.0))
    if slower := _slower(found, "probs", "kl", "jax.scipy", "p and q"):
        judged.append(
            _at_most(f"probs.kl {where}, {NAMES['p and q']}: time over jax.scipy.special.rel_entr", slower, 1.0)
        )
    return judged


def _on_gpu(found: Found, where: str) -> list[dict]:
    """On a GPU: ahead of liger-kernel and torch.compile, and near the bandwidth of a copy."""
    judged = []
    for column, cell, side, part in found:
        if column == "logits" and side in FUSED and cell in ("kl", "js", "tv"):
            slower = _slower(found, column, cell, side, part)
            if slower:
                judged.append(_at_most(f"logits.{cell} {where}, {NAMES[part]}: time over {side}", slower, 1.0))
        passes = found[column, cell, side, part].get("passes")
        if column == "logits" and side == "kljax" and passes and cell in ("kl", "js", "tv"):
            each = found[column, cell, side, part]
            array = each["rows"] * each["outcomes"] * int(re.search(r"\d+", each["dtype"])[0]) / 8e6  # MB
            share = passes * array / each["ms"][1] / each["bandwidth_gb_s"]
            judged.append(_at_least(f"logits.{cell} {where}, {NAMES[part]}: share of the bandwidth", share, 0.85))
    return judged


def of_import(seconds: float) -> dict:
    """What importing kljax may take."""
    return _at_most("seconds of import kljax over import jax, chex", seconds, 0.5)


def judge(records: list[dict], platform: str) -> list[dict]:
    """One entry a target: what, the ratio, its limit, and whether it is met."""
    judged = []
    for (suite, where), found in by_size(records).items():
        if platform == "gpu":
            judged += _on_gpu(found, where) if suite == "sizes" else []
        else:
            judged += (_kl(found) if where == LARGE and suite == "sizes" else []) + (
                _by_hand(found, where) if where.endswith("float32") else []
            )
    return judged
