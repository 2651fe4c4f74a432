"""What a word may be replaced by in an attack: true synonyms of the micro-world, WordNet, word vectors, misspellings.

A source is a function word -> replacements, best first, in lower case; the word may be in any case.
"""

import contextlib
import io
import re
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from lib.errors import StudyError, nearest
from lib.tasks.grammar import SYNONYMS

Source = Callable[[str], list[str]]
KINDS = ("synonyms", "wordnet", "vectors", "characters")
# Function words, and the negations and quantities whose change would change the label
STOP_WORDS = frozenset("""
a about above after again against all almost along also although always am among an and any anyone anything are around
as at away be because been before behind being below beside besides between beyond both but by can cannot could did do
does doing done down during each either else enough even ever every everyone everything except few for from further
had has have having he hence her here hers herself him himself his how however i if in indeed into is it its itself
just least less many may me might mine more moreover most much must my myself near neither never no nobody none nor
not nothing now nowhere of off often on once one only onto or other others otherwise our ours ourselves out over own
per perhaps quite rather same several shall she should since so some someone something sometimes somewhere still such
than that the their theirs them themselves then there therefore these they this those though through thus to together
too toward towards two under unless unlike until up upon us very via was we were what whatever when whenever where
whether which while who whoever whole whom whose why will with within without would yet you your yours yourself
yourselves ain't aren't can't couldn't didn't doesn't don't hadn't hasn't haven't isn't mustn't shouldn't wasn't
weren't won't wouldn't
""".split())

DEBIAN = Path("/usr/share/wordnet")  # package wordnet-base
POS = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
ENDINGS = {"n": ("", "s"), "v": ("", "s", "ed", "ing"), "a": ("",), "r": ("",)}
# WordNet's lexicographer files in the order of their numbers (lexnames(5WN)); Debian's package has no file of them
LEXNAMES = """adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute noun.body
noun.cognition noun.communication noun.event noun.feeling noun.food noun.group noun.location noun.motive noun.object
noun.person noun.phenomenon noun.plant noun.possession noun.process noun.quantity noun.relation noun.shape noun.state
noun.substance noun.time verb.body verb.change verb.cognition verb.communication verb.competition verb.consumption
verb.contact verb.creation verb.emotion verb.motion verb.perception verb.possession verb.social verb.stative
verb.weather adj.ppl""".split()


def source(kind: str, *, limit: int, pos: bool = True, wordnet: str = "", vectors: str = "",
           min_cosine: float = 0.5) -> Source:
    """The source of that kind; it gives at most `limit` replacements, never the word itself or a stop word.

    synonyms: the micro-world's lexicon, label-preserving by construction. wordnet: lemmas of one word from the word's
    synsets, most frequent sense first, in the word's own regular inflection (-s, -ed, -ing); none for an irregular
    form. `pos`: only as the part of speech of the word's most frequent sense, by the lexicon's counts and not by the
    sentence. `wordnet`: its folder; "" looks in nltk's data, then /usr/share/wordnet, then downloads. vectors: the
    neighbours of cosine `min_cosine` or more in the text file `vectors` of lines `word v1 v2 ...` (a first line
    `rows columns` is skipped); it knows no part of speech. characters: two inner neighbours swapped, then an inner
    letter dropped, in words of four letters or more.
    StudyError: an unknown kind, a limit below 1, a file or folder that is absent or at fault.
    """
    if kind not in KINDS:
        raise StudyError(f"attack_source {kind!r} is no source of candidates{nearest(kind, KINDS)}")
    if limit < 1:
        raise StudyError(f"attack_candidates is {limit}; give 1 or more")
    if kind == "synonyms":
        def find(word):
            return SYNONYMS.get(word, ())
    elif kind == "characters":
        find = _misspellings
    elif kind == "wordnet":
        find = _WordNet(wordnet, pos)
    else:
        find = _neighbours(vectors, limit, min_cosine)

    @lru_cache(maxsize=None)
    def known(word: str) -> tuple[str, ...]:
        replacements = dict.fromkeys(c for c in find(word) if c != word and c not in STOP_WORDS)
        return tuple(replacements)[:limit]
    return lambda word: list(known(word.lower()))


def _misspellings(word: str) -> list[str]:
    inner = range(1, len(word) - 1) if word.isalpha() and len(word) > 3 else range(0)
    swaps = [word[:i] + word[i + 1] + word[i] + word[i + 2:] for i in inner[:-1]]
    return swaps + [word[:i] + word[i + 1:] for i in inner]


def _neighbours(path: str, limit: int, min_cosine: float) -> Callable[[str], list[str]]:
    words, table = _read_vectors(path)
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    place = {word: i for i, word in enumerate(words)}

    def find(word: str) -> list[str]:
        if word not in place:
            return []
        cosine = table @ table[place[word]]
        near = np.flatnonzero(cosine >= min_cosine)
        order = near[np.argsort(-cosine[near], kind="stable")]
        return [words[i] for i in order[:limit + 1 + len(STOP_WORDS)]]  # itself and stop words are taken out later
    return find


def _read_vectors(path: str) -> tuple[list[str], np.ndarray]:
    """The words in lower case, each once, and their vectors float32 [words, columns]."""
    if not path or not Path(path).is_file():
        raise StudyError(f"vectors: there is no file {path!r}; name a text file of lines `word v1 v2 ...`, such as "
                         "counter-fitted vectors, or set attack_source: wordnet")
    words, rows = {}, []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            word, *values = line.split() or [""]
            if number == 1 and word.isdigit() and len(values) == 1:
                continue
            try:
                row = np.array(values, np.float32)
            except ValueError:
                raise StudyError(f"vectors: line {number} of {path} is no `word v1 v2 ...`") from None
            if rows and len(row) != len(rows[0]) or not len(row):
                raise StudyError(f"vectors: line {number} of {path} has {len(row)} values, not "
                                 f"{len(rows[0]) if rows else 'a vector'}")
            if word.lower() not in words:
                words[word.lower()] = len(rows)
                rows.append(row)
    if not rows:
        raise StudyError(f"vectors: {path} is empty")
    return list(words), np.stack(rows)


class _WordNet:
    """word -> lemmas that share a synset with it, in its own inflection."""

    def __init__(self, folder: str, same_pos: bool):
        self.reader, self.same_pos = _open_wordnet(folder), same_pos
        self.bases: dict[str, dict[str, list[str]]] = {}  # irregular form -> base forms, per part of speech
        self.forms: dict[str, dict[str, list[str]]] = {}  # and the other way round
        for pos, name in POS.items():
            with self.reader.open(f"{name}.exc") as lines:
                self.bases[pos] = {form: bases for form, *bases in map(str.split, lines)}
            self.forms[pos] = {}
            for form, bases in self.bases[pos].items():
                for base in bases:
                    self.forms[pos].setdefault(base, []).append(form)

    def __call__(self, word: str) -> list[str]:
        readings = [(count, pos, base, ending) for pos in POS for count, base, ending in self._readings(word, pos)]
        if not word.isalpha() or self._is_irregular(word) or not readings:
            return []
        readings.sort(key=lambda r: -r[0])  # stable: noun, verb, adjective, adverb where counts tie
        if self.same_pos:
            readings = readings[:1]
        inflected = [self._inflect(name, pos, ending) for _, pos, base, ending in readings
                     for synset in self.reader.synsets(base, pos) if base in synset.lemma_names()
                     for name in synset.lemma_names() if re.fullmatch("[a-z]+", name) and name != base]
        return [word for word in inflected if word]

    def _readings(self, word: str, pos: str) -> list[tuple[int, str, str]]:
        """Count of the commonest sense, base form and ending of each way to read the word as that part of speech."""
        readings = []
        for base in dict.fromkeys((word, self.reader.morphy(word, pos), *self._stems(word, pos))):
            senses = self.reader.synsets(base, pos, check_exceptions=False) if base else []
            counts = [lemma.count() for s in senses for lemma in s.lemmas() if lemma.name() == base]
            ending = next((e for e in ENDINGS[pos] if self._inflect(base, pos, e) == word), None) if counts else None
            if ending is not None:
                readings.append((max(counts), base, ending))
        return readings

    def _stems(self, word: str, pos: str) -> list[str]:
        """What is left where a regular ending is taken off: morphy stops at a word that is itself in the lexicon."""
        stems = [word[:-len(e)] + tail for e in ENDINGS[pos] if e and word.endswith(e) for tail in ("", "e")]
        return [s for s in stems if len(s) > 1] + [s[:-1] for s in stems if len(s) > 3 and s[-1] == s[-2]]

    def _is_irregular(self, word: str) -> bool:
        return any(base != word and all(_regular(base, e) != word for e in ENDINGS[pos])
                   for pos in POS for base in self.bases[pos].get(word, ()))

    def _inflect(self, base: str, pos: str, ending: str) -> str:
        """The base with that ending; "" where the lexicon lists another form in its place."""
        form = _regular(base, ending)
        others = [other for other in self.forms[pos].get(base, ()) if pos == "n"
                  or next((e for e in ("ing", "s") if other.endswith(e)), "ed") == ending]
        return form if not ending or not others or form in others else ""


def _regular(base: str, ending: str) -> str:
    """Regular English spelling of base + s, ed or ing."""
    if not ending:
        return base
    if ending == "s":
        if re.search("[^aeiou]y$", base):
            return base[:-1] + "ies"
        return base + ("es" if re.search("(s|x|z|ch|sh)$", base) else "s")
    if ending == "ed" and re.search("[^aeiou]y$", base):
        return base[:-1] + "ied"
    if base.endswith("e") and (ending == "ed" or not re.search("(ee|oe|ye)$", base)):
        return base + "d" if ending == "ed" else base[:-1] + "ing"
    if re.fullmatch("[^aeiou]*[aeiou][^aeiouwxy]", base):  # stop, stopped
        return base + base[-1] + ending
    return base + ending


def _lexnames() -> str:
    """The file `lexnames`: number, name, number of the part of speech (noun, verb, adj, adv) a line."""
    numbers = {name: i for i, name in enumerate(POS.values(), start=1)}
    return "".join(f"{i:02d}\t{name}\t{numbers[name.split('.')[0]]}\n" for i, name in enumerate(LEXNAMES))


def _open_wordnet(folder: str):
    """nltk's reader of the named folder, of nltk's own data, of Debian's package, or of what it downloads."""
    try:
        import nltk
        from nltk.corpus.reader.wordnet import WordNetCorpusReader
    except ImportError:
        raise StudyError("attack_source 'wordnet' needs nltk: pip install nltk") from None

    class Reader(WordNetCorpusReader):
        """Reads a folder without `lexnames` too, and looks for no other languages."""

        def map_wn(self, version="wordnet"):
            return None

        def open(self, file):
            return io.StringIO(_lexnames()) if file == "lexnames" else super().open(file)

    def own():
        for name in ("corpora/wordnet", "corpora/wordnet.zip/wordnet/"):
            with contextlib.suppress(LookupError):
                return nltk.data.find(name)

    def named(path: Path) -> str:
        if str(path) not in nltk.data.path:
            nltk.data.path.append(str(path))  # nltk opens no folder but those listed there
        return str(path)

    mend = "apt install wordnet-base, or nltk.download('wordnet'), or give wordnet: FOLDER"
    if folder:
        if not (Path(folder) / "data.noun").is_file():
            raise StudyError(f"wordnet: {folder} holds no data.noun, so it is no WordNet folder; {mend}")
        root = named(Path(folder).resolve())
    else:
        root = own() or (named(DEBIAN) if (DEBIAN / "data.noun").is_file() else None)
        said = io.StringIO()
        if root is None and nltk.download("wordnet", quiet=True, print_error_to=said):  # nltk checks its digest
            root = own()
        if root is None:
            reason = " ".join(said.getvalue().replace("[nltk_data]", "").split())
            raise StudyError(f"wordnet: not in nltk's data nor {DEBIAN}, and not downloaded ({reason}); {mend}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other languages are missing
            return Reader(root, None)
    except (OSError, ValueError, LookupError, nltk.corpus.reader.wordnet.WordNetError) as error:
        raise StudyError(f"wordnet: {folder or root} cannot be read ({error}); {mend}") from None
