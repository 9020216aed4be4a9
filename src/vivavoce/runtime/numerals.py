"""Numbers in words, for synthesisers that cannot read them: English, German, Spanish, Japanese and Chinese.

It knows whole numbers and decimals with the separators of each language, years, percent, sums of money, units,
times of day, dates, ordinals, and long numbers that are read digit by digit, as those of telephones are. Grammar
that depends on the noun (Spanish gender, German endings) takes the commonest form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

Stretch = tuple[int, int, str]
_LONGEST_CARDINAL: Final = 15
"""Digits; more of them are read one by one."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_EN_ONES: Final = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_EN_TENS: Final = _words("- - twenty thirty forty fifty sixty seventy eighty ninety")
_EN_ORDINALS: Final = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip
_DE_ONES: Final = _words(
    "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn "
    "sechzehn siebzehn achtzehn neunzehn"
)
_DE_TENS: Final = _words("- - zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig")
_DE_ORDINALS: Final = {1: "erste", 3: "dritte", 7: "siebte", 8: "achte"}
_ES_ONES: Final = _words(
    "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis "
    "diecisiete dieciocho diecinueve veinte veintiuno veintidós veintitrés veinticuatro veinticinco "
    "veintiséis veintisiete veintiocho veintinueve"
)
_ES_TENS: Final = _words("- - - treinta cuarenta cincuenta sesenta setenta ochenta noventa")
_ES_HUNDREDS: Final = _words(
    "- ciento doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos novecientos"
)
_ES_ORDINALS: Final = _words("cero primero segundo tercero cuarto quinto sexto séptimo octavo noveno décimo")


def _english(n: int) -> str:
    if n < 20:
        return _EN_ONES[n]
    if n < 100:
        return _EN_TENS[n // 10] + (f"-{_EN_ONES[n % 10]}" if n % 10 else "")
    for size, name in ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"), (1000, "thousand")):
        if n >= size:
            return f"{_english(n // size)} {name}" + (f" {_english(n % size)}" if n % size else "")
    return f"{_EN_ONES[n // 100]} hundred" + (f" {_english(n % 100)}" if n % 100 else "")


def _german(n: int) -> str:
    for size, one, many in (
        (10**12, "eine Billion", "Billionen"),
        (10**9, "eine Milliarde", "Milliarden"),
        (10**6, "eine Million", "Millionen"),
    ):
        if n >= size:
            head = one if n // size == 1 else f"{_german(n // size)} {many}"
            return head + (f" {_german(n % size)}" if n % size else "")
    if n >= 1000:
        return f"{_german_before(n // 1000)}tausend" + (_german(n % 1000) if n % 1000 else "")
    if n >= 100:
        return f"{_german_before(n // 100)}hundert" + (_german(n % 100) if n % 100 else "")
    if n < 20:
        return _DE_ONES[n]
    return (f"{_german_before(n % 10)}und" if n % 10 else "") + _DE_TENS[n // 10]


def _german_before(n: int) -> str:
    """As the first part of a word: "ein", not "eins"."""
    return _german(n).removesuffix("s") if n % 100 == 1 else _german(n)


def _spanish(n: int) -> str:
    for size, one, many in ((10**12, "un billón", "billones"), (10**6, "un millón", "millones")):
        if n >= size:
            head = one if n // size == 1 else f"{_spanish_before(n // size)} {many}"
            return head + (f" {_spanish(n % size)}" if n % size else "")
    if n >= 1000:
        head = "mil" if n // 1000 == 1 else f"{_spanish_before(n // 1000)} mil"
        return head + (f" {_spanish(n % 1000)}" if n % 1000 else "")
    if n == 100:
        return "cien"
    if n > 100:
        return _ES_HUNDREDS[n // 100] + (f" {_spanish(n % 100)}" if n % 100 else "")
    if n < 30:
        return _ES_ONES[n]
    return _ES_TENS[n // 10] + (f" y {_ES_ONES[n % 10]}" if n % 10 else "")


def _spanish_before(n: int) -> str:
    """Before a noun: "veintiún mil"."""
    words = _spanish(n)
    return words[:-9] + "veintiún" if words.endswith("veintiuno") else re.sub(r"\buno$", "un", words)


def _chinese(n: int, *, japanese: bool = False) -> str:
    digits = "〇一二三四五六七八九" if japanese else "零一二三四五六七八九"
    if n < 10:
        return digits[n]
    for size, name in ((10**12, "兆"), (10**8, "億" if japanese else "亿"), (10**4, "万")):
        if n >= size:
            gap = "零" if not japanese and 0 < n % size < size // 10 else ""
            return _chinese(n // size, japanese=japanese) + name + gap + _rest(n % size, japanese)
    for size, name in ((1000, "千"), (100, "百"), (10, "十")):
        if n >= size:
            # A ten that begins a number has no one before it; in Japanese no ten, hundred or thousand has.
            bare = n // size == 1 and (japanese or size == 10)
            gap = "零" if not japanese and 0 < n % size < size // 10 else ""
            return ("" if bare else digits[n // size]) + name + gap + _rest(n % size, japanese)
    raise AssertionError(n)


def _rest(n: int, japanese: bool) -> str:
    if not n:
        return ""
    return ("" if japanese or not 10 <= n < 20 else "一") + _chinese(n, japanese=japanese)


@dataclass(frozen=True, slots=True)
class _Tongue:
    cardinal: Callable[[int], str]
    ordinal: Callable[[int], str]
    year: Callable[[int], str]
    point: str
    """The word for a decimal separator."""
    thousands: str
    decimal: str
    minus: str
    gap: str
    """Between two words."""
    percent: str
    money: Mapping[str, str]
    cents: str
    """Between the units of a sum and its hundredths: ``{0} ... {1}``, or empty where they are read as a decimal."""
    units: Mapping[str, str]
    clock: Callable[[int, int], str]
    date: Callable[[int, int, int], str]


def _english_ordinal(n: int) -> str:
    head, joint, last = re.fullmatch(r"(?:(.*)([ -]))?([a-z]+)", _english(n)).groups()  # type: ignore[union-attr]
    if last in _EN_ORDINALS:
        last = _EN_ORDINALS[last]
    else:
        last = f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th"
    return f"{head}{joint}{last}" if head else str(last)


def _german_ordinal(n: int) -> str:
    if n % 100 in _DE_ORDINALS:
        return (_german(n - n % 100) if n >= 100 else "") + _DE_ORDINALS[n % 100]
    return _german(n) + ("te" if 0 < n % 100 < 20 else "ste")


def _german_th(n: int) -> str:
    """After "am", "vom": the commonest place of an ordinal."""
    return f"{_german_ordinal(n)}n"


def _english_year(n: int) -> str:
    if n // 100 in range(11, 20) and n % 100 >= 10:
        return f"{_english(n // 100)} {_english(n % 100)}"
    if n // 100 in range(11, 20):
        return f"{_english(n // 100)} " + (f"oh {_english(n % 100)}" if n % 100 else "hundred")
    return _english(n)


def _german_year(n: int) -> str:
    if n // 100 in range(11, 20):
        return f"{_german(n // 100)}hundert" + (_german(n % 100) if n % 100 else "")
    return _german(n)


def _english_clock(hour: int, minute: int) -> str:
    if not minute:
        return f"{_english(hour)} o'clock" if 0 < hour <= 12 else f"{_english(hour)} hundred"
    return f"{_english(hour)} {'oh ' if minute < 10 else ''}{_english(minute)}"


_EN_MONTHS: Final = _words("January February March April May June July August September October November December")
_DE_MONTHS: Final = _words("Januar Februar März April Mai Juni Juli August September Oktober November Dezember")
_ES_MONTHS: Final = _words(
    "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre"
)


def _japanese(n: int) -> str:
    return _chinese(n, japanese=True)


_TONGUES: Final[Mapping[str, _Tongue]] = {
    "en": _Tongue(
        _english, _english_ordinal, _english_year, "point", ",", ".", "minus", " ", "{} percent",
        {"$": "dollars", "€": "euros", "£": "pounds", "¥": "yen"}, "{0} {2} {1}",
        {"km/h": "kilometers per hour", "km": "kilometers", "cm": "centimeters", "mm": "millimeters", "m": "meters",
         "kg": "kilograms", "g": "grams", "°C": "degrees Celsius", "°F": "degrees Fahrenheit", "°": "degrees",
         "ml": "milliliters", "GB": "gigabytes", "MB": "megabytes", "kHz": "kilohertz", "Hz": "hertz"},
        _english_clock,
        lambda y, m, d: f"{_EN_MONTHS[m - 1]} {_english_ordinal(d)}, {_english_year(y)}",
    ),
    "de": _Tongue(
        _german, _german_th, _german_year, "Komma", ".", ",", "minus", " ", "{} Prozent",
        {"$": "Dollar", "€": "Euro", "£": "Pfund", "¥": "Yen"}, "{0} {2} {1}",
        {"km/h": "Kilometer pro Stunde", "km": "Kilometer", "cm": "Zentimeter", "mm": "Millimeter", "m": "Meter",
         "kg": "Kilogramm", "g": "Gramm", "°C": "Grad Celsius", "°F": "Grad Fahrenheit", "°": "Grad",
         "ml": "Milliliter", "GB": "Gigabyte", "MB": "Megabyte", "kHz": "Kilohertz", "Hz": "Hertz"},
        lambda h, m: f"{_german_before(h)} Uhr" + (f" {_german(m)}" if m else ""),
        lambda y, m, d: f"{_german_th(d)} {_DE_MONTHS[m - 1]} {_german_year(y)}",
    ),
    "es": _Tongue(
        _spanish, lambda n: _ES_ORDINALS[n] if n <= 10 else _spanish(n), _spanish, "coma", ".", ",", "menos", " ",
        "{} por ciento",
        {"$": "dólares", "€": "euros", "£": "libras", "¥": "yenes"}, "{0} {2} con {1}",
        {"km/h": "kilómetros por hora", "km": "kilómetros", "cm": "centímetros", "mm": "milímetros", "m": "metros",
         "kg": "kilogramos", "g": "gramos", "°C": "grados Celsius", "°F": "grados Fahrenheit", "°": "grados",
         "ml": "mililitros", "GB": "gigabytes", "MB": "megabytes", "kHz": "kilohercios", "Hz": "hercios"},
        lambda h, m: _spanish(h) + (f" y {_spanish(m)}" if m else " en punto"),
        lambda y, m, d: f"{_spanish(d)} de {_ES_MONTHS[m - 1]} de {_spanish(y)}",
    ),
    "ja": _Tongue(
        _japanese, _japanese, _japanese, "点", ",", ".", "マイナス", "", "{}パーセント",
        {"$": "ドル", "€": "ユーロ", "£": "ポンド", "¥": "円"}, "",
        {"km/h": "キロメートル毎時", "km": "キロメートル", "cm": "センチメートル",
         "mm": "ミリメートル",
         "m": "メートル", "kg": "キログラム", "g": "グラム", "°C": "度", "℃": "度", "°": "度", "ml": "ミリリットル",
         "GB": "ギガバイト", "MB": "メガバイト", "kHz": "キロヘルツ", "Hz": "ヘルツ"},
        lambda h, m: f"{_japanese(h)}時" + (f"{_japanese(m)}分" if m else ""),
        lambda y, m, d: f"{_japanese(y)}年{_japanese(m)}月{_japanese(d)}日",
    ),
    "zh": _Tongue(
        _chinese, _chinese, lambda n: "".join(_chinese(int(digit)) for digit in str(n)), "点", ",", ".", "负", "",
        "百分之{}",
        {"$": "美元", "€": "欧元", "£": "英镑", "¥": "元"}, "",
        {"km/h": "公里每小时", "km": "公里", "cm": "厘米", "mm": "毫米", "m": "米", "kg": "公斤", "g": "克",
         "°C": "摄氏度", "℃": "摄氏度", "°": "度", "ml": "毫升",
         "GB": "吉字节", "MB": "兆字节", "kHz": "千赫", "Hz": "赫兹"},
        lambda h, m: f"{_chinese(h)}点" + (f"{'零' if m < 10 else ''}{_chinese(m)}分" if m else ""),
        lambda y, m, d: f"{''.join(_chinese(int(digit)) for digit in str(y))}年{_chinese(m)}月{_chinese(d)}日",
    ),
}  # fmt: skip


def _pattern(tongue: _Tongue) -> re.Pattern[str]:
    thousands, decimal = re.escape(tongue.thousands), re.escape(tongue.decimal)
    number = rf"\d{{1,3}}(?:{thousands}\d{{3}})+(?:{decimal}\d+)?(?![\d])|\d+(?:{decimal}\d+)?"
    money = "".join(map(re.escape, tongue.money))
    units = "|".join(map(re.escape, tongue.units))
    return re.compile(
        r"(?<![\w.])(?P<y>\d{4})-(?P<m>0[1-9]|1[0-2])-(?P<d>0[1-9]|[12]\d|3[01])(?!\d)"
        r"|(?<![\w.])(?P<d2>0?[1-9]|[12]\d|3[01])\.(?P<m2>0?[1-9]|1[0-2])\.(?P<y2>\d{4})(?!\d)"
        r"|(?<![\w.:])(?P<h>[01]?\d|2[0-3]):(?P<min>[0-5]\d)(?![\d:])"
        r"|(?P<phone>(?<![\w.,])(?:\+\d[\d ()/-]{5,}\d|0\d[\d ()/-]{4,}\d|\d{3,4}(?:[ -]\d{3,4}){2,}))(?![\d.,]\d)"
        rf"|(?P<before>[{money}])[ ]?(?P<sum>{number})"
        rf"|(?P<minus>(?<![\w\d])[-−](?=\d))?(?P<number>{number})"
        rf"(?:[ \u00a0]?(?:(?P<percent>[%％])|(?P<after>[{money}])|(?P<unit>{units})(?![^\W\d_]))"
        r"|(?P<ordinal>(?:st|nd|rd|th)(?![^\W\d_])|[ºª])|(?P<stop>\.(?=[ \u00a0][^\W\d_])))?"
    )


_PATTERNS: Final = {language: _pattern(tongue) for language, tongue in _TONGUES.items()}


def speller(language: str) -> Callable[[str], list[Stretch]]:
    """A language (``en``, ``de``, ``es``, ``ja``, ``zh``) -> what finds a text's numbers: begin, end, words."""
    tongue, pattern = _TONGUES[language], _PATTERNS[language]

    def spell(text: str) -> list[Stretch]:
        found = []
        for match in pattern.finditer(text):
            words, end = _spelled(tongue, match)
            before, after = text[match.start() - 1 : match.start()], text[end : end + 1]
            if tongue.gap:
                words = (" " if before.isalnum() else "") + words + (" " if after.isalnum() else "")
            found.append((match.start(), end, words))
        return found

    return spell


def _spelled(tongue: _Tongue, match: re.Match[str]) -> tuple[str, int]:
    """The words, and where in the text ends what they stand for."""
    part, end = match.groupdict(), match.end()
    if part["y"] or part["y2"]:
        date = (part[key] or part[f"{key}2"] for key in "ymd")
        return tongue.date(*map(int, date)), end
    if part["h"]:
        return tongue.clock(int(part["h"]), int(part["min"])), end
    if part["phone"]:
        return _one_by_one(tongue, part["phone"]), end
    if part["sum"] or part["after"]:
        return _money(tongue, part["sum"] or part["number"], part["before"] or part["after"]), end
    number = part["number"]
    words = _number(tongue, number)
    if part["ordinal"]:
        words = tongue.ordinal(int(number)) if number.isdecimal() and len(number) <= 4 else words
    elif part["stop"]:
        # Only German writes ordinals so; a clause does not end with this full stop, or it would be the last of it.
        if tongue is not _TONGUES["de"] or len(number) > 2:
            end -= 1
        else:
            words = tongue.ordinal(int(number))
    elif part["percent"]:
        words = tongue.percent.format(words)
    elif part["unit"]:
        words = f"{words}{tongue.gap}{tongue.units[part['unit']]}"
    elif len(number) == 4 and number.isdecimal() and 1100 <= int(number) < 2100:
        words = tongue.year(int(number))
    return (f"{tongue.minus}{tongue.gap}{words}" if part["minus"] else words), end


def _number(tongue: _Tongue, number: str) -> str:
    whole, _, fraction = number.replace(tongue.thousands, "").partition(tongue.decimal)
    if len(whole) > _LONGEST_CARDINAL or (len(whole) > 1 and whole[0] == "0"):
        return _one_by_one(tongue, whole)
    words = tongue.cardinal(int(whole))
    return f"{words}{tongue.gap}{tongue.point}{tongue.gap}{_one_by_one(tongue, fraction)}" if fraction else words


def _money(tongue: _Tongue, number: str, sign: str) -> str:
    whole, _, fraction = number.replace(tongue.thousands, "").partition(tongue.decimal)
    name = tongue.money[sign]
    if len(fraction) == 2 and tongue.cents and len(whole) <= _LONGEST_CARDINAL:
        if not int(fraction):
            return f"{tongue.cardinal(int(whole))} {name}"
        return tongue.cents.format(tongue.cardinal(int(whole)), tongue.cardinal(int(fraction)), name)
    return f"{_number(tongue, number)}{tongue.gap}{name}"


def _one_by_one(tongue: _Tongue, digits: str) -> str:
    """Digit by digit, with a pause between groups."""
    groups = re.findall(r"\d+", digits)
    return ", ".join((tongue.gap).join(tongue.cardinal(int(digit)) for digit in group) for group in groups)
