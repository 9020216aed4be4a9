from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.runtime.numerals import speller


def spelled(language: str, text: str) -> str:
    said, at = "", 0
    for begin, end, words in speller(language)(text):
        said += text[at:begin] + words
        at = end
    return said + text[at:]


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("en", "0 7 13 20 21 99", "zero seven thirteen twenty twenty-one ninety-nine"),
        ("en", "100, 101, 1000000", "one hundred, one hundred one, one million"),
        ("en", "1,234,567", "one million two hundred thirty-four thousand five hundred sixty-seven"),
        ("en", "3.14 and 10%", "three point one four and ten percent"),
        ("en", "In 1945, 1905, 1900 and 2024.", "In nineteen forty-five, nineteen oh five, nineteen hundred and "
         "two thousand twenty-four."),
        ("en", "$3.50, €1,000 and 5 £", "three dollars fifty, one thousand euros and five pounds"),
        ("en", "10:30, 9:05, 7:00", "ten thirty, nine oh five, seven o'clock"),
        ("en", "the 1st, 22nd, 3rd, 12th and 20th", "the first, twenty-second, third, twelfth and twentieth"),
        ("en", "On 2024-12-17", "On December seventeenth, two thousand twenty-four"),
        ("en", "-5 °C, 80 km/h, 3 m", "minus five degrees Celsius, eighty kilometers per hour, three meters"),
        ("en", "Call +1 555-123-4567.", "Call one, five five five, one two three, four five six seven."),
        ("en", "agent 007", "agent zero zero seven"),
        ("en", "I have 3. You have 4.", "I have three. You have four."),
        ("en", "3 mice", "three mice"),
        ("en", "A4 and x2", "A four and x two"),
        ("de", "1 21 101 1001 71", "eins einundzwanzig einhunderteins eintausendeins einundsiebzig"),
        ("de", "1.234,5", "eintausendzweihundertvierunddreißig Komma fünf"),
        ("de", "1.000.000 und 2000000000", "eine Million und zwei Milliarden"),
        ("de", "Es kostet 3,50 €.", "Es kostet drei Euro fünfzig."),
        ("de", "Am 3. Mai 1945 um 13:30 Uhr",
         "Am dritten Mai neunzehnhundertfünfundvierzig um dreizehn Uhr dreißig Uhr"),
        ("de", "im 19. und 20. Jahrhundert", "im neunzehnten und zwanzigsten Jahrhundert"),
        ("de", "am 17.12.2024", "am siebzehnten Dezember zweitausendvierundzwanzig"),
        ("es", "16, 21, 31, 100, 101, 555",
         "dieciséis, veintiuno, treinta y uno, cien, ciento uno, quinientos cincuenta y cinco"),
        ("es", "1.000 y 21.000 y 1.000.000", "mil y veintiún mil y un millón"),
        ("es", "3,50 € y 10 %", "tres euros con cincuenta y diez por ciento"),
        ("es", "a las 10:30, el 2º piso", "a las diez y treinta, el segundo piso"),
        ("ja", "25°C、10:30、1,234円", "二十五度、十時三十分、千二百三十四円"),
        ("ja", "100、11111、3.5%", "百、一万千百十一、三点五パーセント"),
        ("zh", "12、110、1001、10010、100010", "十二、一百一十、一千零一、一万零一十、十万零一十"),
        ("zh", "2024年、3.5%、10:05", "二零二四年、百分之三点五、十点零五分"),
        ("zh", "100000000", "一亿"),
    ],
)  # fmt: skip
def test_numbers_in_words(language: str, text: str, words: str) -> None:
    assert spelled(language, text) == words


@given(language=st.sampled_from(["en", "de", "es", "ja", "zh"]), text=st.text("01259 .,:-+%€$mkh°/()x２"))
def test_no_digit_is_left(language: str, text: str) -> None:
    stretches = speller(language)(text)
    assert not any("0" <= char <= "9" for char in spelled(language, text))
    assert stretches == sorted(stretches)
    assert all(begin < end and words for begin, end, words in stretches)
    assert all(one[1] <= other[0] for one, other in pairwise(stretches))
