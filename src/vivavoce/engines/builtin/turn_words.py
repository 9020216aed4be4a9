"""Do the words of an utterance want another word after them? Small tables for four languages, and no grammar.

What is known of a turn's words before it is over is poor (a recogniser's first guess, often with a wrong word in
the middle), so only its two ends are looked at: how it begins tells a question or an order, how it ends whether
more must come. That words tell more of the end of a turn than the melody is the finding of de Ruiter, Mitterer and
Enfield, "Projecting the end of a speaker's turn" (Language 82, 2006).

The weights are set by hand, in log-odds, not trained.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_FILLER: Final = -4.0
_OPEN: Final = -3.0
_SELDOM_LAST: Final = -2.0
_SELDOM_LAST_IN_QUESTION: Final = -0.5
_COMPLETE: Final = 1.5
_ANSWER: Final = 2.0
_PLAIN: Final = 0.5
_FRAGMENT: Final = -0.5
_QUESTION_MARK: Final = 2.0
_STOP_MARK: Final = 1.0
_OPEN_MARK: Final = -2.0

_WORD: Final = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


@dataclass(frozen=True, slots=True)
class _Language:
    fillers: frozenset[str]
    """Sounds of somebody who thinks."""
    open: frozenset[str]
    """Words, or pairs of them, after which another one must come."""
    seldom_last: frozenset[str]
    """Words that end a statement seldom, but a question or an order now and then ("Where are you from?")."""
    answers: frozenset[str]
    """Words that are a whole turn, alone or with each other."""
    closers: frozenset[str]
    """Words that end whatever they stand after."""
    starters: frozenset[str]
    """Words that a question or an order begins with."""


def _set(text: str) -> frozenset[str]:
    """Words, and pairs joined by ``+``."""
    return frozenset(entry.replace("+", " ") for entry in text.split())


_LANGUAGES: Final[dict[str, _Language]] = {
    "en": _Language(
        fillers=_set("um uh uhm umm er erm hmm hm mm ah eh"),
        open=_set(
            "a an the my your our their its every of from with into onto than between during without until "
            "and or but because if while although unless whether so well i we they he she i'm i'll i'd i've you're "
            "we're they're it's that's there's he's she's what's and+then such+as kind+of a+lot want+to need+to "
            "going+to have+to like+to would+like let's gonna wanna"
        ),
        seldom_last=_set(
            "to for in on at by about over is are was were am be has have had can could would should will do does "
            "did not very which who when where"
        ),
        answers=_set(
            "yes yeah yep no nope ok okay thanks thank you hello hi hey bye goodbye please sure right exactly "
            "correct stop cancel great good fine maybe never mind of+course"
        ),
        closers=_set("please thanks thank+you again"),
        starters=_set(
            "what when where who whose which why how can could would will do does did is are was were have has "
            "should may tell show give play turn set start stop open close call send read find search make let put "
            "go take add remove repeat say spell explain help please book order cancel switch"
        ),
    ),
    "de": _Language(
        fillers=_set("äh ähm öh hm hmm mh na"),
        open=_set(
            "der die das den dem des ein eine einen einem einer mein meine meinen dein deine sein seine ihr ihre "
            "kein keine und oder aber weil dass ob wenn während obwohl sondern denn von mit für zum zur beim im am "
            "durch gegen ohne ich wir sehr und+dann also"
        ),
        seldom_last=_set(
            "zu in auf an bei nach über unter um aus vor ist sind war bin habe hat kann will du er sie es"
        ),
        answers=_set("ja nein doch gut okay ok danke bitte hallo tschüss genau richtig klar stopp gerne vielen"),
        closers=_set("bitte danke nochmal"),
        starters=_set(
            "was wann wo wer wie warum wieso welche welcher welches wohin woher kannst können könntest könnten "
            "hast haben ist sind gibt mach mache sag sage zeig zeige spiel spiele stell stelle schalte ruf öffne "
            "hilf bitte"
        ),
    ),
    "es": _Language(
        fillers=_set("eh em este mmm hm pues"),
        open=_set(
            "el la los las un una unos unas de del al en con por para sin sobre entre desde hasta y e o u pero "
            "porque que si cuando mientras aunque mi tu su mis tus sus muy yo es+que y+luego o+sea quiero+que"
        ),
        seldom_last=_set("a es son está están era soy tengo tiene puedo quiero como"),
        answers=_set("sí si no vale bien gracias hola adiós claro exacto correcto bueno muchas perfecto"),
        closers=_set("por+favor gracias"),
        starters=_set(
            "qué cuándo dónde quién cómo por cuál cuánto puedes puede podrías hay dime di pon enciende apaga abre "
            "cierra llama busca muestra ayuda repite"
        ),
    ),
    "fr": _Language(
        fillers=_set("euh heu hum ben bah alors"),
        open=_set(
            "le la les un une des du de au aux en avec pour par sur sans dans entre et ou mais parce que qui si "
            "quand comme mon ma mes ton ta tes son sa ses notre votre leur je tu il ils nous j'ai c'est très "
            "et+puis est-ce"
        ),
        seldom_last=_set("à est sont suis ai as a peux veux fait vous elle"),
        answers=_set("oui non merci bonjour salut d'accord ok bien exactement voilà ouais parfait"),
        closers=_set("plaît merci"),
        starters=_set(
            "que quoi quand où qui comment pourquoi combien quel quelle est-ce peux pouvez pourriez dis dites "
            "montre mets allume éteins ouvre ferme appelle cherche aide répète"
        ),
    ),
}

LANGUAGES: Final = tuple(_LANGUAGES)


def completeness(words: str, language: str) -> float:
    """How much the words speak for (above 0) or against (below) a turn that is complete, in log-odds.

    ``language``: one of :data:`LANGUAGES`; of others nothing is known, 0. No words tell nothing.
    """
    table = _LANGUAGES.get(language)
    said = [word.replace("’", "'") for word in _WORD.findall(words.lower())]
    if table is None or not said:
        return 0.0
    return _by_words(said, table) + _by_mark(words.rstrip())


def _by_words(said: list[str], table: _Language) -> float:
    last, pair = said[-1], " ".join(said[-2:])
    asks = len(said) > 1 and said[0] in table.starters
    if last in table.fillers:
        return _FILLER
    if all(word in table.answers for word in said) or pair in table.answers:
        return _ANSWER
    if last in table.closers or pair in table.closers:
        return _ANSWER
    if last in table.open or pair in table.open:
        return _OPEN
    if last in table.seldom_last:
        return _SELDOM_LAST_IN_QUESTION if asks else _SELDOM_LAST
    if asks and len(said) > 2:
        return _COMPLETE
    return _PLAIN if len(said) > 2 else _FRAGMENT


def _by_mark(words: str) -> float:
    """What a recogniser that punctuates says of it."""
    if words.endswith(("...", "…", ",", "-", "–", ":", ";")):
        return _OPEN_MARK
    if words.endswith("?"):
        return _QUESTION_MARK
    return _STOP_MARK if words.endswith((".", "!")) else 0.0
