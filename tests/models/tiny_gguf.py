"""Makes a language model of 2 MB that llama.cpp loads and runs, and whose answers are known.

``python tests/models/tiny_gguf.py FILE`` with the packages ``gguf`` and ``numpy``. It is a llama of one layer whose
attention and feed-forward parts add nothing, so that the next token depends on the last one alone, by a table:

=========================  =============================================================================
the last message           what it answers
=========================  =============================================================================
of a tool                  ``It is sunny in Ulm!``
has ``weather``, tools     a call of ``get_weather`` with ``{"city": "Ulm"}``, in the way of Hermes and Qwen
has ``count``              ``one two three four five`` again and again, without an end
has ``dice``               one of ``heads``, ``tails`` and 30 other words, each as likely; then the end
any other                  ``Hello from a very small model.``
=========================  =============================================================================

Which row it is, its chat template decides: the prompt ends with a token of that row.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Final

import gguf
import numpy as np
import numpy.typing as npt

HELLO: Final = "Hello from a very small model."
COUNT: Final = ("one", "two", "three", "four", "five")
SIDES: Final = ("heads", "tails", *(f"side{n}" for n in range(30)))
SUNNY: Final = "It is sunny in Ulm!"
CALL: Final = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Ulm"}}\n</tool_call>'

_SPACE: Final = "\u2581"
_CONTROLS: Final = ("<|im_start|>", "<|im_end|>", "<|say|>", "<|count|>", "<|dice|>", "<|call|>", "<|told|>")
_PIECES: Final[dict[str, tuple[str, ...]]] = {
    "<|say|>": ("Hello", " from", " a", " very", " small", " model", "."),
    "<|call|>": (
        "<tool_call>",
        *('\n{"name": "get', '_weather", "argu', 'ments": {"city"', ': "Ulm"}}'),
        "\n</tool_call>",
    ),
    "<|told|>": ("It", " is", " sunny", " in", " Ulm", "!"),
}
_SURE: Final = 3.0
_CONTEXT: Final = 4096

CHAT_TEMPLATE: Final = """\
{%- if tools %}<|im_start|>system
{{ tools | tojson }}<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}<tool_call>
{{ call.function | tojson }}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% set last = messages[-1] %}
{%- if last.role == 'tool' %}<|told|>
{%- elif tools and 'weather' in last.content %}<|call|>
{%- elif 'count' in last.content %}<|count|>
{%- elif 'dice' in last.content %}<|dice|>
{%- else %}<|say|>
{%- endif %}
{%- endif %}"""


def write_model(path: Path, *, chat_template: str = CHAT_TEMPLATE) -> None:
    """Write the model; ``chat_template`` is what tells its rows apart."""
    tokens, types = _vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    size = _size(tokens)
    writer.add_name("tiny")
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(size)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_rope_dimension_count(size // 4)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(size)
    writer.add_tokenizer_model("llama")
    unused = [f"<|unused{n}|>" for n in range(size - len(tokens))]
    writer.add_token_list([*tokens, *unused])
    writer.add_token_scores([-float(n) for n in range(size)])
    writer.add_token_types([*types, *(gguf.TokenType.UNUSED for _ in unused)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(chat_template)
    for name, tensor in _tensors(tokens, size).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _size(tokens: list[str]) -> int:
    """Tokens and width alike: each token has a direction of its own."""
    return -(-len(tokens) // 64) * 64


def _spelt(piece: str) -> str:
    return piece.replace(" ", _SPACE)


def _vocabulary() -> tuple[list[str], list[gguf.TokenType]]:
    words = [piece for pieces in _PIECES.values() for piece in pieces]
    words += [f" {word}" for word in COUNT] + list(SIDES)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), *_CONTROLS, *map(_spelt, words)]
    kinds = gguf.TokenType
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256]
    return tokens, [*types, *[kinds.CONTROL] * len(_CONTROLS), *[kinds.NORMAL] * len(words)]


def _tensors(tokens: list[str], size: int) -> dict[str, npt.NDArray[np.float32]]:
    follows = np.zeros((size, size), np.float32)
    """[next, last]"""
    end = "<|im_end|>"

    def chain(*pieces: str) -> None:
        for last, following in itertools.pairwise(pieces):
            follows[tokens.index(_spelt(following)), tokens.index(_spelt(last))] = _SURE

    for start, pieces in _PIECES.items():
        chain(start, *pieces, end)
    chain("<|count|>", *(f" {word}" for word in COUNT), f" {COUNT[0]}")
    for side in SIDES:
        chain("<|dice|>", side, end)
    nothing = np.zeros((size, size), np.float32)
    ones = np.ones(size, np.float32)
    return {
        "token_embd.weight": np.eye(size, dtype=np.float32),
        "output.weight": follows,
        "output_norm.weight": ones,
        "blk.0.attn_norm.weight": ones,
        "blk.0.ffn_norm.weight": ones,
        **{f"blk.0.attn_{part}.weight": nothing for part in ("q", "k", "v", "output")},
        "blk.0.ffn_gate.weight": np.zeros((32, size), np.float32),
        "blk.0.ffn_up.weight": np.zeros((32, size), np.float32),
        "blk.0.ffn_down.weight": np.zeros((size, 32), np.float32),
    }


if __name__ == "__main__":
    write_model(Path(sys.argv[1]))
