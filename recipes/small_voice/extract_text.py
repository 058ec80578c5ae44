"""The committed word lists, made once: `python -m small_voice.extract_text WORDNET POCKETSPHINX_MODEL HIBARI_ASSETS`.

    text/examples.txt.xz   example sentences of WordNet 3.0 that consist of known words
    text/words.txt.xz      known words: word, log10 of its frequency, and class: words of one may replace each other

Known is a word that the recogniser can hear (its language model and its dictionary have it) and that the synthesisers'
lexicon can read (misaki's, in hibari), so that no pronunciation is a guess and every word can be judged.
"""

import argparse
import gzip
import json
import lzma
import re
import struct
from collections import defaultdict
from pathlib import Path

TEXT = Path(__file__).parent / "text"
_HEADER = b"Trie Language Model"
_QUANTIZED = 3 * 2**16 * 4  # bytes of the tables of a quantised trigram model
_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
_SENTENCE = re.compile(r"[A-Za-z][A-Za-z' ,;?!.]*")
_SUFFIXES = ("ing", "ed", "est", "er", "ly", "s")
_LOG10 = 23027.0  # pocketsphinx keeps logarithms to the base 1.0001
_COMMON = -3.2  # log10: what is more frequent holds sentences together and is not replaced
# Nothing made at random may contain these.
_LEFT_OUT = re.compile(
    r"nigg|fag|cunt|fuck|shit|bitch|whore|slut|kike|spic\b|chink|coon|dyke|gook|tranny|rape|rapist|porn|pussy|cock|dick"
    r"|penis|vagina|anal\b|anus|semen|orgasm|masturb|nazi|jew|negro|queer|homo|retard|bastard|damn|piss|tits|boob|incest"
    r"|genocid|terroris|suicid|molest|pedo|holocaust|slave|murder|hitler|sex|erotic|nude|naked|breast|lesbian|gay\b|gays"
)


def frequencies(model: Path) -> dict[str, float]:
    """Logarithm of every word's probability, from pocketsphinx's binary trigram model."""
    content = model.read_bytes()
    order, n_words = struct.unpack_from("<BI", content, len(_HEADER))
    assert content.startswith(_HEADER), "a language model as a trie"
    assert order == 3, f"expected trigrams, got order {order}"
    start = len(_HEADER) + 1 + 4 * order + 4 + _QUANTIZED
    at = start + 12 * (n_words + 1)
    words = content[len(content) - _length_of_words(content, n_words) :].decode().split("\0")[:n_words]
    probabilities = [struct.unpack_from("<f", content, start + 12 * i)[0] for i in range(n_words)]
    assert at < len(content), "words follow the trie"
    return dict(zip(words, probabilities, strict=True))


def _length_of_words(content: bytes, n_words: int) -> int:
    end = len(content) - 1
    for _ in range(n_words):
        end = content.rindex(b"\0", 0, end)
    return len(content) - end - 1


def lemmas(wordnet: Path) -> dict[str, set[str]]:
    """Parts of speech (n, v, a, r) of every single word of WordNet."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, tag in (("noun", "n"), ("verb", "v"), ("adj", "a"), ("adv", "r")):
        for line in (wordnet / f"index.{name}").read_text(encoding="latin-1").splitlines():
            if not line.startswith(" "):
                found[line.partition(" ")[0]].add(tag)
    return found


def class_of(word: str, known: dict[str, set[str]]) -> str:
    """Parts of speech and ending; "-" for what nothing may replace."""
    if tags := known.get(word):
        return "".join(sorted(tags)) + "."
    for suffix in _SUFFIXES:
        if word.endswith(suffix):
            for stem in _stems(word, suffix):
                if tags := known.get(stem):
                    return "".join(sorted(tags)) + "." + suffix
    return "-"


def _stems(word: str, *suffixes: str) -> list[str]:
    """What a word may be made of by an ending."""
    found = []
    for suffix in suffixes or ("'s", "s", "ed", "ing"):
        if word.endswith(suffix):
            stem = word.removesuffix(suffix)
            found += [stem, stem + "e", stem[:-1], re.sub("i$", "y", stem), stem.removesuffix("e")]
    return found


def examples(wordnet: Path) -> list[str]:
    """Every example in quotes, in the files' order."""
    found = {}
    for name in ("noun", "verb", "adj", "adv"):
        for line in (wordnet / f"data.{name}").read_text(encoding="latin-1").splitlines():
            for quoted in re.findall(r'"([^"]+)"', line.partition("|")[2]):
                found[re.sub(r"\s+", " ", quoted).strip(" ;,")] = None
    return list(found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("wordnet", type=Path)
    parser.add_argument("pocketsphinx_model", type=Path)
    parser.add_argument("hibari_assets", type=Path)
    args = parser.parse_args()
    heard = frequencies(args.pocketsphinx_model / "en-us.lm.bin")
    dictionary = (args.pocketsphinx_model / "cmudict-en-us.dict").read_text().splitlines()
    spoken = {line.partition(" ")[0] for line in dictionary}
    readable: set[str] = set()
    for name in ("gold", "silver"):
        readable |= set(json.loads(gzip.decompress((args.hibari_assets / f"lexicon_us_{name}.json.gz").read_bytes())))
    names = {word.lower() for word in readable if word[:1].isupper() and word.lower() not in readable}
    lower = {word.lower() for word in readable}

    def is_known(word: str) -> bool:
        word = word.lower()
        is_read = bool(lower & {word, *_stems(word)})
        return word in heard and word in spoken and is_read and not _LEFT_OUT.search(word)

    tags = lemmas(args.wordnet)
    words = sorted(word for word in heard if _WORD.fullmatch(word) and is_known(word))
    lines = []
    for word in words:
        share = heard[word] / _LOG10
        is_fixed = word in names or "'" in word or share > _COMMON
        shown = word.capitalize() if word in names else word
        lines.append(f"{shown} {share:.2f} {'-' if is_fixed else class_of(word, tags)}")
    kept = []
    for sentence in examples(args.wordnet):
        n_words = len(sentence.split())
        if 3 <= n_words <= 22 and _SENTENCE.fullmatch(sentence) and all(map(is_known, _WORD.findall(sentence))):
            kept.append(sentence)
    TEXT.mkdir(exist_ok=True)
    for name, content in (("words", lines), ("examples", kept)):
        (TEXT / f"{name}.txt.xz").write_bytes(lzma.compress("\n".join(content).encode(), preset=9))
        print(name, len(content), content[:: max(1, len(content) // 20)])


if __name__ == "__main__":
    main()
