#!/bin/sh
# Makes src/vivavoce/demo/data/question.wav: the question that `vivavoce demo` asks when it is given none.
#
# Needs flite 2.2 with its built-in voice "rms" (Debian, Ubuntu: apt-get install flite) and a Python with numpy
# (default: .venv/bin/python). The same flite gives the same file. The voice is CMU Flite's cmu_us_rms, built
# from the CMU ARCTIC database; both are free to use and distribute, see NOTICE.
set -eu

cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
out=src/vivavoce/demo/data/question.wav
raw=$(mktemp)
trap 'rm -f "$raw"' EXIT

flite -voice rms -t "Hello, can you tell me what you heard me say?" -o "$raw"

# 16 kHz mono 16-bit as flite makes it: silence at the ends cut to 0.3 s, peak at 80 % of full scale.
"$python" - "$raw" "$out" <<'PYTHON'
import sys
import wave

import numpy as np

with wave.open(sys.argv[1], "rb") as source:
    assert (source.getnchannels(), source.getsampwidth(), source.getframerate()) == (1, 2, 16000)
    sound = np.frombuffer(source.readframes(source.getnframes()), "<i2").astype(np.float64)
loud = np.flatnonzero(np.abs(sound) > 0.01 * np.abs(sound).max())
edge = np.zeros(16000 * 3 // 10)
speech = sound[loud[0] : loud[-1] + 1] * (0.8 * 32767 / np.abs(sound).max())
with wave.open(sys.argv[2], "wb") as target:
    target.setnchannels(1)
    target.setsampwidth(2)
    target.setframerate(16000)
    target.writeframes(np.rint(np.concatenate([edge, speech, edge])).astype("<i2").tobytes())
PYTHON
