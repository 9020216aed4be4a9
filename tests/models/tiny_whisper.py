"""A Whisper model so small that a test can make it, and so plain that a test can check what it hears.

It is a real CTranslate2 model folder: every weight is written by hand here, the network does the rest.

- Time is cut into slots of half a second. In each slot the loudest of :data:`TONES` chooses the word; a quiet slot
  ends the text. So 1.5 s of sound are at most three words, and more sound adds words at the end.
- The word tells its slot by a letter: the tone ``la`` in the third slot is ``lac``.
- The language token of the prompt chooses the spelling (:data:`SPELLING`); the language that is detected is the one
  of the tone at the beginning (:data:`NATIVE`).
- A prompt that holds :data:`CUE` makes the words upper case.

How: a decoder token carries the number of the slot after it, so that cross attention looks at that part of the
sound; self attention looks back for the language and the cue; the output weights add all that up.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

SAMPLE_RATE: Final = 16000
SLOT_MS: Final = 500
SLOTS: Final = 24
TONES: Final = {"do": 300.0, "mi": 700.0, "so": 1300.0, "la": 2600.0}
"""Name of each tone, and its pitch in Hz."""
SPELLING: Final = {"en": "{}{}", "de": "{}{}de", "fr": "{}{}fr"}
"""Language -> how a word is written, from its tone and the letter of its slot."""
NATIVE: Final = {"do": "en", "mi": "en", "so": "de", "la": "fr"}
"""Tone in the first slot -> the language that is detected."""
CUE: Final = "loudly"

_MELS: Final = 80
_FRAMES: Final = 1500
"""Encoder frames of 20 ms in a window of 30 s."""
_FRAMES_PER_SLOT: Final = SLOT_MS // 20
_TIMES: Final = 1501

# Dimensions of the network's state.
_PLUS, _MINUS, _LANGUAGE, _TONE = 0, 1, 2, 5
_CUE, _MARK, _SLOT = 9, 10, 12
_WIDTH: Final = 40
_STEADY: Final = 20.0
"""Makes every state as long as every other, so that a layer norm scales all of them alike."""
_NORM: Final = math.sqrt(_WIDTH / (2 * _STEADY**2))

Array = npt.NDArray[np.float32]


def sound(*tones: str | None, ms: int = SLOT_MS, rate: int = SAMPLE_RATE) -> bytes:
    """One tone after the other, ``ms`` each; None is silence. s16le mono at ``rate`` Hz."""
    time = np.arange(rate * ms // 1000) / rate
    parts = [np.zeros_like(time) if tone is None else np.sin(2 * np.pi * TONES[tone] * time) for tone in tones]
    return b"".join((part * 12000).astype("<i2").tobytes() for part in parts)


def words(*tones: str, language: str = "en") -> str:
    """What the model makes of ``tones``."""
    return " ".join(_word(language, tone, slot) for slot, tone in enumerate(tones))


def _word(language: str, tone: str, slot: int) -> str:
    return SPELLING[language].format(tone, chr(ord("a") + slot))


def make_tiny_whisper(folder: Path, *, multilingual: bool = True) -> Path:
    """Write the model to ``folder``; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _Vocabulary(multilingual=multilingual)
    _spec(vocabulary).save(str(folder))
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary.tokenizer()))
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"feature_size": _MELS, "sampling_rate": SAMPLE_RATE, "hop_length": 160, "n_fft": 400,
                    "chunk_length": 30})
    )  # fmt: skip
    return folder


class _Vocabulary:
    """Byte-level pairs as Whisper has them, with a token for each word that the model can say."""

    def __init__(self, *, multilingual: bool) -> None:
        self.ids: dict[str, int] = {}
        self.merges: list[tuple[str, str]] = []
        for character in _byte_characters():
            self._add(character)
        self.words: dict[int, tuple[str, int, int, bool]] = {}
        """Token of a word -> its language, tone and slot, and whether it is loud."""
        for language in SPELLING if multilingual else ("en",):
            for n, tone in enumerate(TONES):
                for slot in range(SLOTS):
                    for loud in (False, True):
                        text = _word(language, tone, slot)
                        token = self._merged("Ġ" + (text.upper() if loud else text))
                        self.words[token] = (language, n, slot, loud)
        self.cue = self._merged("Ġ" + CUE)
        if multilingual:
            self._add("")  # by which CTranslate2 knows multilingual models
        self.end = self._add("<|endoftext|>")
        self.start = self._add("<|startoftranscript|>")
        self.languages = {language: self._add(f"<|{language}|>") for language in SPELLING}
        self._add("<|translate|>")
        self.transcribe = self._add("<|transcribe|>")
        for name in ("startoflm", "startofprev", "nospeech"):
            self._add(f"<|{name}|>")
        self.no_timestamps = self._add("<|notimestamps|>")
        self.times = [self._add(f"<|{n * 0.02:.2f}|>") for n in range(_TIMES)]

    def _add(self, token: str) -> int:
        return self.ids.setdefault(token, len(self.ids))

    def _merged(self, word: str) -> int:
        """Adds the pairs that make one token of a word."""
        for end in range(2, len(word) + 1):
            if word[:end] not in self.ids:
                self.merges.append((word[: end - 1], word[end - 1]))
                self._add(word[:end])
        return self.ids[word]

    def tokenizer(self) -> dict[str, Any]:
        """The file of the ``tokenizers`` library."""
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

        plain = {token: n for token, n in self.ids.items() if n < self.end}
        tokenizer = Tokenizer(models.BPE(vocab=plain, merges=self.merges))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        special = [token for token, n in self.ids.items() if n >= self.end]
        tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
        assert all(tokenizer.token_to_id(token) == n for token, n in self.ids.items())
        made: dict[str, Any] = json.loads(tokenizer.to_str())
        return made


def _byte_characters() -> list[str]:
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _spec(vocabulary: _Vocabulary) -> Any:
    from ctranslate2.specs import WhisperSpec

    spec = WhisperSpec(1, 1, 1, 1)
    spec.register_vocabulary(list(vocabulary.ids))
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = []
    spec.config.lang_ids = sorted(vocabulary.languages.values())
    spec.config.alignment_heads = [[0, 0]]
    _encoder(spec.encoder)
    _decoder(spec.decoder, vocabulary)
    spec.validate()
    spec.optimize()
    return spec


def _encoder(encoder: Any) -> None:
    """Each frame's state: how loud each tone is, and the slot it lies in."""
    hear = np.zeros((_WIDTH, _MELS, 3), np.float32)
    bias = np.zeros(_WIDTH, np.float32)
    for n, pitch in enumerate(TONES.values()):
        mel = _mel_of(pitch)
        hear[_TONE + n, mel - 1 : mel + 2, 1] = 2.0
        # A quiet band is at most 0 (as padding is), a loud one at least 1.
        bias[_TONE + n] = -3.0
    _conv(encoder.conv1, hear, bias)
    keep = np.zeros((_WIDTH, _WIDTH, 3), np.float32)
    keep[range(_WIDTH), range(_WIDTH), 1] = 1.0
    _conv(encoder.conv2, keep, np.zeros(_WIDTH, np.float32))
    places = np.zeros((_FRAMES, _WIDTH), np.float32)
    _steady(places)
    for frame in range(min(_FRAMES, SLOTS * _FRAMES_PER_SLOT)):
        places[frame, _SLOT + frame // _FRAMES_PER_SLOT] = 4.0
    encoder.position_encodings.encodings = places
    layer = encoder.layer[0]
    _attention(layer.self_attention, _no(), _no(), _no(), _no())
    _nothing(layer.ffn)
    _norm(encoder.layer_norm)


def _decoder(decoder: Any, vocabulary: _Vocabulary) -> None:
    size = len(vocabulary.ids)
    tokens = np.zeros((size, _WIDTH), np.float32)
    _steady(tokens)
    tokens[:, _SLOT] = 1.0
    """What follows any token is looked for in the first slot, but for words."""
    for token, (_, _, slot, _) in vocabulary.words.items():
        tokens[token, _SLOT] = 0.0
        if slot + 1 < SLOTS:
            tokens[token, _SLOT + slot + 1] = 1.0
    for n, token in enumerate(vocabulary.languages.values()):
        tokens[token, _LANGUAGE + n] = 1.0
        tokens[token, _MARK] = 1.0
    tokens[vocabulary.cue, _CUE] = tokens[vocabulary.cue, _MARK] = 1.0
    tokens[vocabulary.transcribe, _MARK + 1] = 1.0
    decoder.embeddings.weight = tokens
    decoder.position_encodings.encodings = np.zeros((448, _WIDTH), np.float32)

    layer = decoder.layer[0]
    # Look back for tokens with a mark: all that asks is the same constant.
    ask, mark, take = _no(), _no(), _no()
    ask[0, _PLUS] = 1.0
    mark[0, _MARK] = 30.0 * math.sqrt(_WIDTH)
    for dimension in (*range(_LANGUAGE, _LANGUAGE + 3), _CUE):
        take[dimension, dimension] = 1.0 / _NORM
    _attention(layer.self_attention, ask, mark, take, np.eye(_WIDTH, dtype=np.float32))
    # Look at the slot of the sound that comes next.
    where, places, loudness = _no(), _no(), _no()
    for slot in range(SLOTS):
        where[_SLOT + slot, _SLOT + slot] = 10.0 * math.sqrt(_WIDTH)
        places[_SLOT + slot, _SLOT + slot] = 10.0
    for n in range(len(TONES)):
        loudness[_TONE + n, _TONE + n] = 1.0 / _NORM
    _attention(layer.attention, where, places, loudness, np.eye(_WIDTH, dtype=np.float32), cross=True)
    _nothing(layer.ffn)
    _norm(decoder.layer_norm)

    say = np.zeros((size, _WIDTH), np.float32)
    bias = np.full(size, -100.0, np.float32)
    names = list(SPELLING)
    for token, (language, tone, slot, loud) in vocabulary.words.items():
        say[token, _LANGUAGE + names.index(language)] = 60.0
        say[token, _TONE + tone] = 30.0
        say[token, _SLOT + slot] = 60.0
        say[token, _CUE] = 200.0 if loud else 0.0
        bias[token] = -30.0 if loud else 0.0
    bias[vocabulary.end] = 160.0
    say[vocabulary.end, _CUE] = 40.0
    bias[vocabulary.times[0]] = 0.0
    for n, (language, token) in enumerate(vocabulary.languages.items()):
        bias[token] = -50.0 - n
        for m, name in enumerate(TONES):
            if NATIVE[name] == language:
                say[token, _TONE + m] = 10.0
    decoder.projection.weight = say / _NORM
    decoder.projection.bias = bias
    _norm(decoder.layer_norm)


def _mel_of(hertz: float) -> int:
    """The band of Whisper's 80 mel bands (Slaney's scale, 0 to 8000 Hz) in which a pitch lies."""

    def mel(f: float) -> float:
        return f * 3 / 200 if f < 1000 else 15 + math.log(f / 1000) / math.log(6.4) * 27

    return round(mel(hertz) / mel(8000) * (_MELS + 1)) - 1


def _steady(states: Array) -> None:
    states[:, _PLUS] = _STEADY
    states[:, _MINUS] = -_STEADY


def _no() -> Array:
    return np.zeros((_WIDTH, _WIDTH), np.float32)


def _norm(norm: Any) -> None:
    norm.gamma = np.ones(_WIDTH, np.float32)
    norm.beta = np.zeros(_WIDTH, np.float32)


def _conv(conv: Any, weight: Array, bias: Array) -> None:
    conv.weight, conv.bias = weight, bias


def _linear(linear: Any, weight: Array) -> None:
    linear.weight = weight
    linear.bias = np.zeros(weight.shape[0], np.float32)


def _attention(attention: Any, query: Array, key: Array, value: Array, out: Array, *, cross: bool = False) -> None:
    _norm(attention.layer_norm)
    projections = [query, np.concatenate([key, value])] if cross else [np.concatenate([query, key, value])]
    for linear, weight in zip(attention.linear, [*projections, out], strict=True):
        _linear(linear, weight)


def _nothing(ffn: Any) -> None:
    _norm(ffn.layer_norm)
    _linear(ffn.linear_0, _no())
    _linear(ffn.linear_1, _no())
